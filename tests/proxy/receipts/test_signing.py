"""Signed answers through the middleware: real keys, stores and routes around an application of no engine."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from starlette.requests import Request  # noqa: TC002 (FastAPI reads it)
from starlette.responses import JSONResponse, StreamingResponse
from states import server
from toploc_proxy.answers.context import Call, current
from toploc_proxy.answers.middleware import ProofMiddleware
from toploc_proxy.metrics import RECEIPTS
from toploc_proxy.receipts import signing
from toploc_proxy.receipts.signing import Signer
from toploc_proxy.routes import published_keys, router
from toploc_proxy.settings import OnError, Settings
from toploc_proxy.stores.receipts import MemoryStore, SqliteStore

from toploc.errors import InvalidKey
from toploc.evidence.assembly import Assembly
from toploc.protocol import ChoiceProofs, ProofError
from toploc.receipts.keys import SigningKey, parse_keys
from toploc.receipts.receipt import verify_receipt
from toploc.receipts.statement import issue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
OLD = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))).public
HEAD = {"id": "chatcmpl-1", "created": 1795492622, "model": "model"}
TEXTS = ["Forty-two. 🙂", "zwölf"]


def proven(index: int) -> ChoiceProofs:
    return ChoiceProofs(index=index, token_ids=(index, 7), proofs=(f"proof {index}",))


def generate(n: int, *, failing: bool = False) -> None:
    context = current.get()
    if context is not None:
        error = ProofError(code="rows_missing", message="why")
        last = ChoiceProofs(index=n - 1, token_ids=(1,), error=error) if failing else proven(n - 1)
        choices = [*map(proven, range(n - 1)), last]
        context.calls.append(Call("model", n, None, [1, 2, 3], {c.index: c for c in choices}, request_id=HEAD["id"]))
        context.settled = True


async def chat(request: Request) -> Any:
    body = json.loads(await request.body())
    n = body.get("n", 1)
    if not body.get("stream"):
        generate(n, failing=body.get("failing", False))
        choices = [
            {"index": i, "message": {"role": "assistant", "content": TEXTS[i]}, "finish_reason": "stop"}
            for i in range(n)
        ]
        return JSONResponse({**HEAD, "object": "chat.completion", "choices": choices})

    def event(index: int, delta: Any, finish: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**HEAD, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"

    async def events() -> AsyncIterator[str]:
        for place in range(max(map(len, TEXTS[:n]))):
            for i in range(n):
                role = {"role": "assistant"} if place == 0 else {}
                yield event(i, {**role, "content": TEXTS[i][place : place + 1]})
        generate(n)
        for i in range(n):
            yield event(i, {}, "stop")
        if body.get("stream_options"):
            used = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 9}}
            yield f"data: {json.dumps(used)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def messages(request: Request) -> Any:
    async def events() -> AsyncIterator[str]:
        message = {"id": HEAD["id"], "type": "message", "content": [], "usage": {"input_tokens": 3}}
        yield f"event: message_start\ndata: {json.dumps({'type': 'message_start', 'message': message})}\n\n"
        generate(1)
        block = {"type": "text", "text": ""}
        yield f"data: {json.dumps({'type': 'content_block_start', 'index': 0, 'content_block': block})}\n\n"
        yield 'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "42"}}\n\n'
        ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
        yield f"event: message_delta\ndata: {json.dumps(ended)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def application(signer: Signer | None, on_error: OnError = OnError.REPORT) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    app.add_api_route("/chat", chat, methods=["POST"])
    app.add_api_route("/messages", messages, methods=["POST"])
    app.add_middleware(ProofMiddleware, settings=Settings(channel="/nowhere", on_error=on_error))
    app.state.toploc = server(signer=signer)
    return app


@pytest.fixture
def signer() -> Signer:
    return Signer(KEY, (KEY.public, OLD), MemoryStore())


def send(app: FastAPI, *calls: tuple[str, str, Any]) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return [await client.request(method, path, content=body) for method, path, body in calls]

    return asyncio.run(run())


def ask(app: FastAPI, body: Any, path: str = "/chat") -> httpx.Response:
    return send(app, ("POST", path, json.dumps(body).encode()))[0]


def reassembled(text: str) -> dict[str, Any]:
    """A chat completion from the events of a stream, as a client puts it together."""
    events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    fields = [event.pop("toploc_proofs") for event in events if "toploc_proofs" in event]
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    by_index = [{choice["index"]: choice for choice in field["choices"]} for field in fields]
    # Signed once, however often it is sent.
    assert all(later | earlier == later for earlier, later in pairwise(by_index))
    return {**(assembly.response() or {}), "toploc_proofs": {**fields[-1], "choices": list(by_index[-1].values())}}


def reasons(request: Any, response: Any, keys: Any = (KEY.public,)) -> list[str | None]:
    return [result.reason for result in verify_receipt(request, response, keys)]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_signed(signer: Signer, n: int, stream: bool) -> None:
    request = {"messages": [{"role": "user", "content": "é"}], "n": n, "stream": stream, "toploc": {}}
    answer = ask(application(signer), request)
    response = reassembled(answer.text) if stream else answer.json()
    assert reasons(request, response) == [None] * n
    statement = response["toploc_proofs"]["choices"][-1]["receipt"]["statement"]
    assert statement["response_id"] == HEAD["id"]
    assert statement["output_sha256"]
    response["choices"][n - 1]["message"]["content"] += "."
    assert reasons(request, response)[-1] == "output_differs"
    assert reasons({**request, "n": n + 1}, response)[0] == "request_differs"


def test_streams_of_other_routes_carry_the_responses_id(signer: Signer) -> None:
    answer = ask(application(signer), {"max_tokens": 1}, "/messages")
    [event] = [json.loads(line[6:]) for line in answer.text.split("\n") if "toploc_proofs" in line]
    whole = {
        "id": HEAD["id"],
        "type": "message",
        "content": [{"type": "text", "text": "42"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    whole["toploc_proofs"] = event["toploc_proofs"]
    [result] = verify_receipt({"max_tokens": 1}, whole, [KEY.public])
    assert (result.reason, result.uncovered, bool(result.statement.output_sha256)) == (None, (), True)


@pytest.mark.parametrize("n", [1, 2])
def test_what_comes_after_the_last_choice_is_named(signer: Signer, n: int) -> None:
    request = {"n": n, "stream": True, "stream_options": {"include_usage": True}}
    response = reassembled(ask(application(signer), request).text)
    assert response["usage"] == {"total_tokens": 9}
    results = verify_receipt(request, response, [KEY.public])
    assert [(result.reason, result.uncovered) for result in results] == [(None, ("usage",))] * n
    response["choices"][0]["message"]["role"] = "user"
    assert reasons(request, response) == ["leaves_differ", None][:n]


@pytest.mark.parametrize("stream", [False, True])
def test_a_large_answer_is_signed_elsewhere(signer: Signer, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def noting(*given: Any, **named: Any) -> Any:
        threads.add(threading.current_thread() is threading.main_thread())
        return issue(*given, **named)

    monkeypatch.setattr(signing, "issue", noting)
    for name in ("INLINE", "INLINE_STREAM"):
        monkeypatch.setattr(signing, name, 100)
    request = {"stream": stream, "n": 2}
    answer = ask(application(signer), request)
    response = reassembled(answer.text) if stream else answer.json()
    assert reasons(request, response) == [None, None]
    assert threads == {False}


def test_a_stream_that_cannot_be_read_is_signed_by_its_tokens(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(Assembly, "add", unreadable)
    answer = ask(application(signer), {"stream": True})
    monkeypatch.undo()
    response = reassembled(answer.text)
    [result] = verify_receipt({"stream": True}, response, [KEY.public])
    assert (result.reason, result.uncovered) == (None, ("leaves", "output"))


def test_a_choice_without_proofs_is_not_signed(signer: Signer) -> None:
    request = {"n": 2, "failing": True}
    response = ask(application(signer), request).json()
    assert reasons(request, response) == [None, "no_receipt"]


def test_no_key_no_receipt() -> None:
    app = application(None)
    response = ask(app, {}).json()
    assert reasons({}, response) == ["no_receipt"]
    assert published_keys(app.state.toploc) == []
    [receipts] = send(app, ("GET", "/v1/toploc/receipts/chatcmpl-1", b""))
    assert (receipts.status_code, receipts.json()["error"]["code"]) == (404, "not_signing")


def test_keys_are_published(signer: Signer) -> None:
    published = published_keys(application(signer).state.toploc)
    assert parse_keys(json.loads(json.dumps({"keys": published}))) == (KEY.public, OLD)


@pytest.mark.parametrize("stored", ["memory", "sqlite"])
def test_receipts_by_response_id(signer: Signer, stored: str, tmp_path: Path) -> None:
    store = MemoryStore() if stored == "memory" else SqliteStore(str(tmp_path / "receipts.db"))
    app = application(Signer(KEY, (KEY.public,), store))
    asked = ("POST", "/chat", b'{"n": 2}')
    answer, found, other = send(
        app, asked, ("GET", "/v1/toploc/receipts/chatcmpl-1", b""), ("GET", "/v1/toploc/receipts/chatcmpl-2", b"")
    )
    sent = [choice["receipt"] for choice in answer.json()["toploc_proofs"]["choices"]]
    assert found.json() == {"receipts": sent}
    assert not any(text in found.text for text in TEXTS)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "receipt_not_found")


def test_a_store_that_fails_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteStore(str(tmp_path / "receipts.db"))
    store._database._thread.submit(store._database._connection.execute, "DROP TABLE receipts").result()
    before = RECEIPTS.labels("not_stored")._value.get()
    app = application(Signer(KEY, (KEY.public,), store))
    with caplog.at_level(logging.ERROR, "vllm.toploc"):
        answer, found = send(app, ("POST", "/chat", b"{}"), ("GET", "/v1/toploc/receipts/chatcmpl-1", b""))
    assert reasons({}, answer.json()) == [None]
    assert (found.status_code, found.json()["error"]["code"]) == (503, "receipts_unavailable")
    assert RECEIPTS.labels("not_stored")._value.get() - before == 1


@pytest.mark.parametrize("stream", [False, True])
def test_signing_that_fails_costs_no_answer(
    signer: Signer, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("in the library")

    monkeypatch.setattr(signing, "issue", broken)
    before = RECEIPTS.labels("failed")._value.get()
    with caplog.at_level(logging.ERROR, "vllm.toploc"):
        answer = ask(application(signer), {"stream": stream})
    response = reassembled(answer.text) if stream else answer.json()
    assert response["choices"][0]["message"]["content"] == TEXTS[0]
    assert response["toploc_proofs"]["choices"][0]["proofs"] == ["proof 0"]
    assert reasons({"stream": stream}, response) == ["no_receipt"]
    assert RECEIPTS.labels("failed")._value.get() - before == 1
    assert "signing an answer failed" in caplog.text


def test_a_large_request_is_digested_elsewhere(signer: Signer) -> None:
    request = {"messages": [{"role": "user", "content": "x" * 2 * signing.INLINE}]}
    assert reasons(request, ask(application(signer), request).json()) == [None]


@pytest.mark.parametrize("stream", [False, True])
def test_requests_are_signed_by_their_bytes(signer: Signer, stream: bool) -> None:
    """Of one with a large integer there is nothing else."""
    body = json.dumps({"seed": 2**63 - 1, "stream": stream}, indent=2).encode()
    [answer] = send(application(signer), ("POST", "/chat", body))
    response = reassembled(answer.text) if stream else answer.json()
    statement = response["toploc_proofs"]["choices"][0]["receipt"]["statement"]
    assert statement["request_body_sha256"] == sha256(body).hexdigest()
    assert "request_sha256" not in statement
    request = json.loads(body)
    assert [r.reason for r in verify_receipt(request, response, [KEY.public], body)] == [None]
    assert reasons(request, response) == ["request_unknown"]
    assert reasons({**request, "seed": 1}, response) == ["request_differs"]


def test_signers_from_settings(tmp_path: Path) -> None:
    path = str(tmp_path / "key.pem")
    key = SigningKey.create(tmp_path / "key.pem")
    assert Signer.of(Settings(channel="/nowhere")) is None
    signer = Signer.of(Settings(channel="/nowhere", signing_keys=(path,)))
    assert signer.keys == (key.public,)
    assert isinstance(signer.store, MemoryStore)
    settings = Settings(channel="/nowhere", signing_keys=(path,), receipts=str(tmp_path / "receipts.db"))
    assert isinstance(Signer.of(settings).store, SqliteStore)
    with pytest.raises(InvalidKey):
        Signer.of(Settings(channel="/nowhere", signing_keys=(str(tmp_path / "none"),)))
