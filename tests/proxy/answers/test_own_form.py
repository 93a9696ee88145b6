"""SGLang's /generate, whose answers have a form of their own: an object, a list of them, or events."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from toploc_proxy.answers.context import Call, RequestContext, Served
from toploc_proxy.answers.responder import Responder
from toploc_proxy.settings import OnError

from toploc.protocol import ChoiceProofs, ProofError, RequestOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVED = Served("model", "bfloat16", None)


class Kept(dict[str, str]):
    """A store of proofs."""

    def add(self, response_id: str, field: bytes | str) -> None:
        self[response_id] = field if isinstance(field, str) else field.decode()


class Unasked:
    """In place of a signature: nobody may sign this form."""

    def keep(self, _: bytes) -> None:
        pass

    async def prepare(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


def context(count: int, error: ProofError | None = None) -> RequestContext:
    """Of prompts with one choice each."""
    calls = [
        Call(
            "m",
            1,
            None,
            (i,),
            {0: ChoiceProofs(index=0, token_ids=(i,), proofs=None if error else ("p",), error=error)},
        )
        for i in range(count)
    ]
    return RequestContext(SERVED, RequestOptions(), None, calls, settled=True)


def respond(
    of: RequestContext,
    kind: bytes,
    bodies: Sequence[bytes],
    on_error: OnError = OnError.REPORT,
    signature: Any = None,
) -> tuple[list[dict[str, Any]], Kept]:
    sent: list[dict[str, Any]] = []
    kept = Kept()

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        responder = Responder(of, send, on_error, signature, store=kept)  # type: ignore[arg-type]
        await responder({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for body in bodies:
            await responder({"type": "http.response.body", "body": body, "more_body": True})
        await responder({"type": "http.response.body", "body": b""})

    asyncio.run(run())
    return sent, kept


def answer(number: int, finished: bool = True, **more: Any) -> dict[str, Any]:
    reason = {"type": "length", "length": 1} if finished else None
    return {"text": "é", "output_ids": [number], "meta_info": {"id": f"id{number}", "finish_reason": reason}, **more}


def test_an_object() -> None:
    sent, kept = respond(context(1), b"application/json", [json.dumps(answer(0)).encode()], signature=Unasked())
    body = json.loads(sent[1]["body"])
    assert body.pop("toploc_proofs")["choices"] == [{"index": 0, "token_ids": [0], "proofs": ["p"]}]
    assert body == answer(0)
    assert list(kept) == ["id0"]


def test_a_list() -> None:
    """Each answer has its own, of its own prompt."""
    sent, kept = respond(
        context(3), b"application/json", [json.dumps([answer(i) for i in range(3)]).encode()], signature=Unasked()
    )
    for i, body in enumerate(json.loads(sent[1]["body"])):
        field = body.pop("toploc_proofs")
        assert [choice["token_ids"] for choice in field["choices"]] == [[i]]
        assert body == answer(i)
    assert list(kept) == ["id0", "id1", "id2"]
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()


@pytest.mark.parametrize("body", [b"[]", b"[1]", b'[{"text": "x"}]', b"[{}", b" [null]"])
def test_other_lists_pass(body: bytes) -> None:
    sent, kept = respond(context(1), b"application/json", [body])
    assert b"".join(message["body"] for message in sent[1:]) == body
    assert not kept


def test_events() -> None:
    said = [answer(0, False, index=0), answer(1, True, index=1), answer(0, True, index=0)]
    bodies = [b"data: " + json.dumps(one, separators=(",", ":")).encode() + b"\n\n" for one in said]
    sent, kept = respond(context(2), b"text/event-stream", [*bodies, b"data: [DONE]\n\n"], signature=Unasked())
    text = b"".join(message["body"] for message in sent[1:])
    events = [json.loads(line[6:]) for line in text.split(b"\n") if line.startswith(b"data: {")]
    assert "toploc_proofs" not in events[0]
    assert [choice["index"] for choice in events[1]["toploc_proofs"]["choices"]] == [1]
    assert [choice["index"] for choice in events[2]["toploc_proofs"]["choices"]] == [0, 1]
    assert text.endswith(b"data: [DONE]\n\n")
    assert list(kept) == ["id0"]


def test_a_failure_is_the_whole_answers() -> None:
    error = ProofError(code="rows_missing", message="why")
    body = json.dumps([answer(0), answer(1)]).encode()
    sent, _ = respond(context(2, error), b"application/json", [body], OnError.FAIL)
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["code"] == "rows_missing"


@pytest.mark.parametrize(("said", "name"), [({"id": "msg_1"}, "msg_1"), ({}, "rid")])
def test_a_streamed_message_has_the_id_of_its_first_event(said: dict[str, str], name: str) -> None:
    """SGLang's is not the engine's, by which vLLM's messages are called."""
    of = context(1)
    of.calls[0].request_id = "rid"
    start = {"type": "message_start", "message": said}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    bodies = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in (start, end)]
    sent, kept = respond(of, b"text/event-stream", bodies)
    assert list(kept) == [name]
    assert b"".join(message["body"] for message in sent[1:]).startswith(bodies[0])
