"""What happens to a response, message by message."""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toploc_proxy.answers.context import TOGETHER, Call, RequestContext, Served
from toploc_proxy.answers.responder import Responder
from toploc_proxy.settings import OnError

from toploc.protocol import ChoiceProofs, ProofError, RequestOptions, ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVED = Served("model", "bfloat16", None)
JSON = [(b"content-type", b"application/json")]
SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
DONE = b"data: [DONE]\n\n"


def proven(index: int) -> ChoiceProofs:
    return ChoiceProofs(index=index, token_ids=(index, 7), proofs=(f"proof {index}",))


def failed(index: int, code: str = "rows_missing") -> ChoiceProofs:
    return ChoiceProofs(index=index, token_ids=(), error=ProofError(code=code, message="why"))


def call(*choices: ChoiceProofs, n: int | None = None, prompt: Sequence[int] = (1, 2)) -> Call:
    return Call("model", n or len(choices), None, prompt, {choice.index: choice for choice in choices})


def context(*calls: Call, **options: bool) -> RequestContext:
    return RequestContext(SERVED, RequestOptions(**options), None, list(calls), settled=bool(calls))


def head(headers: list[tuple[bytes, bytes]], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def parts(*bodies: bytes) -> list[dict[str, Any]]:
    last = len(bodies) - 1
    return [{"type": "http.response.body", "body": body, "more_body": i < last} for i, body in enumerate(bodies)]


def respond(
    context: RequestContext, messages: Sequence[dict[str, Any]], on_error: OnError = OnError.REPORT
) -> list[dict[str, Any]]:
    """What the client gets of an application's messages."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        responder = Responder(context, send, on_error)
        for message in messages:
            await responder(message)

    asyncio.run(run())
    return sent


def stream(context: RequestContext, *bodies: bytes, on_error: OnError = OnError.REPORT) -> bytes:
    sent = respond(context, [head(SSE), *parts(*bodies, b"")], on_error)
    assert sent[0] == head(SSE)
    assert sent[-1].get("more_body", False) is False
    return b"".join(message["body"] for message in sent[1:])


def event(value: object, name: str | None = None) -> bytes:
    prefix = b"" if name is None else b"event: " + name.encode() + b"\n"
    return prefix + b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def field_of(event_: bytes, *path: str) -> dict[str, Any]:
    """The field in an event, which is removed from it here to compare the rest."""
    value = json.loads(event_[event_.index(b"data: ") + 6 :])
    for key in path:
        value = value[key]
    field = value["toploc_proofs"]
    ToplocProofs.model_validate_json(json.dumps(field))
    return field


def delta(index: int, text: str, finish: str | None = None) -> bytes:
    return event({"id": "c", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]})


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vllm.toploc")


# JSON


def test_json_gets_the_field_and_keeps_its_bytes() -> None:
    body = b'{\n "id": "x",  "choices": [{"text": "\xc3\xa9"}] }\n'
    sent = respond(context(call(proven(0))), [head(JSON), *parts(body)])
    new = sent[1]["body"]
    field = json.loads(new)["toploc_proofs"]
    assert field["choices"] == [{"index": 0, "token_ids": [0, 7], "proofs": ["proof 0"]}]
    assert field["prompt"]["num_tokens"] == 2
    assert new.replace(b',"toploc_proofs":' + json.dumps(field, separators=(",", ":")).encode(), b"") == body
    assert sent[0] == head([*JSON, (b"content-length", str(len(new)).encode())])
    assert len(sent) == 2


@given(st.lists(st.integers(0, 60), max_size=8))
def test_json_body_in_many_messages(cuts: list[int]) -> None:
    body = json.dumps({"text": "é" * 20}, ensure_ascii=False).encode()
    borders = [0, *sorted(cuts), len(body)]
    divided = [body[a:b] for a, b in pairwise(borders)]
    whole = respond(context(call(proven(0))), [head(JSON), *parts(body)])
    assert respond(context(call(proven(0))), [head(JSON), *parts(*divided)])[1]["body"] == whole[1]["body"]


def test_huge_json_body() -> None:
    pieces = [b'{"text":"', *[b"x" * 65536] * 200, b'"}']
    sent = respond(context(call(proven(0))), [head(JSON), *parts(*pieces)])
    assert len(json.loads(sent[1]["body"])["text"]) == 200 * 65536
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()


def test_headers_that_describe_the_old_body_go() -> None:
    kept = [*JSON, (b"x-request-id", b"7"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]
    old = [(b"Content-Length", b"2"), (b"ETag", b"x"), (b"content-md5", b"x"), (b"digest", b"x")]
    sent = respond(context(call(proven(0))), [head([*old, *kept]), *parts(b"{}")])
    assert sent[0]["headers"] == [*kept, (b"content-length", str(len(sent[1]["body"])).encode())]


UNTOUCHED = [
    ([head(JSON, 400), *parts(b'{"error":{}}')], 1),
    ([head(JSON, 500), *parts(b'{"error":{}}')], 1),
    ([head([(b"etag", b"x")], 304), *parts(b"")], 1),
    ([head([], 204), *parts(b"")], 1),
    ([{"type": "http.response.start", "status": 200}, *parts(b"{}")], 1),
    ([head([*JSON, (b"content-encoding", b"gzip")]), *parts(b"\x1f\x8b", b"\x00")], 1),
    ([head([*SSE, (b"Content-Encoding", b"gzip")]), *parts(b"\x1f\x8b\n\n", b"\x00")], 1),
    ([head([(b"content-type", b"text/plain")]), *parts(b"{", b"}")], 1),
    ([head([(b"content-type", b"application/json-seq")]), *parts(b"{}", b"{}")], 1),
    ([head([(b"content-type", b"application/jsonl")]), *parts(b"{}\n", b"{}")], 1),
    ([head([*JSON, (b"etag", b"x"), (b"content-length", b"2")]), *parts(b"[", b"]")], 1),
    ([head([*JSON, (b"etag", b"x"), (b"content-length", b"4")]), *parts(b"null")], 1),
    ([head([*JSON, (b"content-length", b"0")]), *parts(b"")], 1),
    ([head([*JSON, (b"etag", b"x")]), *parts(b'"{}"')], 1),
    ([head(JSON), *parts(b'{"a"', b":1}")], 0),
    ([head(SSE), *parts(delta(0, "a")[:9], delta(0, "a")[9:], delta(0, "", "stop"), DONE)], 0),
    ([{"type": "http.response.debug", "info": {}}, head(SSE), *parts(b"")], 0),
]


@pytest.mark.parametrize(("messages", "calls"), UNTOUCHED)
def test_what_is_not_ours_passes_message_for_message(messages: list[dict[str, Any]], calls: int) -> None:
    assert respond(context(*[call(proven(0))] * calls), messages) == messages


@pytest.mark.parametrize("content_type", [b"Application/JSON", b"application/json; charset=utf-8"])
def test_content_types_of_json(content_type: bytes) -> None:
    sent = respond(context(call(proven(0))), [head([(b"Content-Type", content_type)]), *parts(b"{}")])
    assert b"toploc_proofs" in sent[1]["body"]


def test_choices_are_numbered_through_several_prompts() -> None:
    calls = [call(proven(0), proven(1)), call(proven(0), failed(1), prompt=[3])]
    body = respond(context(*calls), [head(JSON), *parts(b"{}")])[1]["body"]
    field = json.loads(body)["toploc_proofs"]
    ToplocProofs.model_validate_json(json.dumps(field))
    assert [choice["index"] for choice in field["choices"]] == [0, 1, 2, 3]
    assert [choice.get("prompt", {}).get("num_tokens") for choice in field["choices"]] == [None, None, 1, 1]
    assert [choice.get("error", {}).get("code") for choice in field["choices"]] == [None, None, None, "rows_missing"]


def test_prompt_token_ids_on_request() -> None:
    body = respond(context(call(proven(0)), prompt_token_ids=True), [head(JSON), *parts(b"{}")])[1]["body"]
    assert json.loads(body)["toploc_proofs"]["prompt"]["token_ids"] == [1, 2]


def test_one_error_stands_for_all_where_all_failed() -> None:
    calls = [call(failed(0, "first"), failed(1, "second"))]
    field = json.loads(respond(context(*calls), [head(JSON), *parts(b"{}")])[1]["body"])["toploc_proofs"]
    assert field["error"]["code"] == "first"
    assert "choices" not in field


def test_an_unproven_choice_of_a_stream_says_whose_it_is() -> None:
    """Its tokens are known, and the other choices have proofs."""
    several = context(call(proven(0), failed(1).model_copy(update={"token_ids": (7, 8)})))
    sent = stream(several, delta(0, "", "stop"), delta(1, "", "stop"), DONE)
    fields = [field_of(event + b"\n\n") for event in sent.split(b"\n\n") if b"toploc_proofs" in event]
    assert [[choice["index"] for choice in field["choices"]] for field in fields] == [[0], [0, 1]]
    unproven = fields[1]["choices"][1]
    assert (unproven["error"]["code"], bool(unproven["token_ids"])) == ("rows_missing", True)


@pytest.mark.parametrize(
    "calls",
    [
        [call(proven(0))],
        [call(failed(0))],
        [call(proven(0), failed(1))],
        [call(proven(0)), call(proven(0), prompt=(3,))],
        [call(n=2)],
    ],
)
def test_what_does_not_apply_is_left_out(calls: list[Call]) -> None:
    """Explicit nulls break clients that are strict about types."""
    sent = respond(context(*calls), [head(JSON), *parts(b"{}")])
    assert b"null" not in sent[1]["body"]


def test_choice_that_did_not_finish() -> None:
    field = json.loads(respond(context(call(proven(0), n=2)), [head(JSON), *parts(b"{}")])[1]["body"])["toploc_proofs"]
    assert [choice.get("error", {}).get("code") for choice in field["choices"]] == [None, "unfinished"]


UNPROVABLE = [
    context(call(proven(0), prompt=[-1])),
    context(call(proven(0), prompt=["no", "ids"])),  # type: ignore[list-item]
]


@pytest.mark.parametrize("broken", UNPROVABLE)
def test_error_in_putting_proofs_together_leaves_the_text(broken: RequestContext) -> None:
    body = json.loads(respond(broken, [head(JSON), *parts(b'{"text":"a"}')])[1]["body"])
    assert (body["text"], body["toploc_proofs"]["error"]["code"]) == ("a", "internal_error")
    text = delta(0, "a")
    sent = stream(broken, text, delta(0, "", "stop"), DONE)
    assert sent.startswith(text)
    assert sent.endswith(DONE)
    assert field_of(sent[len(text) : -len(DONE)])["error"]["code"] == "internal_error"


@pytest.mark.parametrize("calls", [[call(failed(0))], [call(proven(0), failed(1))], [call(proven(0)), call(n=1)]])
def test_failing_on_error(calls: list[Call]) -> None:
    sent = respond(
        context(*calls), [head([*JSON, (b"content-length", b"2"), (b"etag", b"x")]), *parts(b"{", b"}")], OnError.FAIL
    )
    error = json.loads(sent[1]["body"])["error"]
    assert sent[0]["status"] == 500
    assert error["type"] == "InternalServerError"
    assert error["code"] in ("rows_missing", "unfinished")
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert len(sent) == 2


def test_failing_on_error_does_not_fail_what_is_proven() -> None:
    sent = respond(context(call(proven(0))), [head(JSON), *parts(b"{}")], OnError.FAIL)
    assert sent[0]["status"] == 200
    assert b"proof 0" in sent[1]["body"]


# Streams


def test_only_the_event_that_ends_a_choice_changes() -> None:
    first, last = delta(0, "Grüße 🙂"), delta(0, "", "stop")
    usage = event({"choices": [], "usage": {"completion_tokens": 2}})
    keep_alive = b": keep-alive\n\n"
    sent = respond(context(call(proven(0))), [head(SSE), *parts(first, keep_alive, last, usage, DONE, b"")])
    assert [m["body"] for m in sent[1:] if m["body"] != sent[3]["body"]] == [first, keep_alive, usage, DONE, b""]
    assert field_of(sent[3]["body"])["choices"] == [{"index": 0, "token_ids": [0, 7], "proofs": ["proof 0"]}]
    assert sent[3]["body"].startswith(last.rstrip().removesuffix(b"}"))


STREAM = b"".join(
    [
        delta(0, 'é "finish_reason":"stop"'),
        delta(1, "\u2028🙂\r\n\n"),
        delta(0, "", "stop"),
        b": keep-alive\n\n",
        delta(1, "", "length"),
        event({"choices": []}),
        DONE,
    ]
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_division_of_a_stream_does_not_matter(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(borders)]
    both = context(call(proven(0), proven(1)))
    expected = stream(both, STREAM)
    assert stream(both, *pieces) == expected
    assert expected.count(b"toploc_proofs") == 2


def test_last_message_may_carry_the_rest() -> None:
    sent = respond(context(call(proven(0))), [head(SSE), *parts(delta(0, "", "stop") + b"data: [DO")])
    assert len(sent) == 2
    assert sent[1]["body"].endswith(b"\n\ndata: [DO")
    assert sent[1]["more_body"] is False


def test_an_event_has_all_choices_that_have_ended() -> None:
    """Who keeps the last value of a field that it does not know has them all."""
    numbered = context(call(proven(0), proven(1)), call(proven(0), failed(1), prompt=[3]))
    order = [3, 0, 2, 1]
    sent = respond(numbered, [head(SSE), *parts(*(delta(i, "", "stop") for i in order), b"")])
    fields = [field_of(message["body"]) for message in sent[1:-1]]
    assert fields[0]["error"]["code"] == "rows_missing"
    indices = [[choice["index"] for choice in field["choices"]] for field in fields[1:]]
    assert indices == [[0, 3], [0, 2, 3], [0, 1, 2, 3]]
    assert [field["prompt"]["num_tokens"] for field in fields if "prompt" in field] == [2, 2, 2]
    assert [choice.get("prompt", {}).get("num_tokens") for choice in fields[-1]["choices"]] == [None, None, 1, 1]
    assert fields[-1]["choices"][3]["error"]["code"] == "rows_missing"


@pytest.mark.parametrize("many", [TOGETHER, TOGETHER + 1, 40])
def test_of_many_choices_the_last_event_alone_has_all(many: int) -> None:
    """Else their proofs would be sent half as many times as there are choices."""
    order = [*range(many)][::-1]
    sent = respond(
        context(call(*map(proven, range(many)))), [head(SSE), *parts(*(delta(i, "", "stop") for i in order), b"")]
    )
    fields = [field_of(message["body"]) for message in sent[1:-1]]
    counts = [len(field["choices"]) for field in fields]
    assert counts == ([*range(1, many + 1)] if many == TOGETHER else [*[1] * (many - 1), many])
    assert [choice["index"] for choice in fields[-1]["choices"]] == sorted(order)


def test_a_choice_that_ends_twice_is_listed_once() -> None:
    sent = respond(
        context(call(proven(0), proven(1))), [head(SSE), *parts(*(delta(i, "", "stop") for i in (0, 0, 1)), b"")]
    )
    fields = [field_of(message["body"]) for message in sent[1:-1]]
    assert [[choice["index"] for choice in field["choices"]] for field in fields] == [[0], [0], [0, 1]]


@pytest.mark.parametrize("index", [1, -1, 10**18])
def test_choice_that_no_generation_belongs_to(index: int) -> None:
    sent = stream(context(call(proven(0))), delta(index, "", "stop"))
    assert field_of(sent)["error"]["code"] == "choice_unknown"


def test_responses() -> None:
    start = event({"type": "response.created", "response": {"status": "in_progress"}}, "response.created")
    text = event({"type": "response.output_text.delta", "delta": '"type":"response.completed"'}, "x")
    for kind in ("response.completed", "response.incomplete"):
        end = event({"response": {"id": "r", "output": ['"response":{}'], "n": {}}, "type": kind}, kind)
        sent = respond(context(call(proven(0)), call(proven(0))), [head(SSE), *parts(start, text, end, b"")])
        assert [message["body"] for message in sent[1:3]] == [start, text]
        assert [choice["index"] for choice in field_of(sent[3]["body"], "response")["choices"]] == [0, 1]
        assert "toploc_proofs" not in json.loads(sent[3]["body"].split(b"data: ")[1])
        assert sent[3]["body"].startswith(b"event: " + kind.encode() + b"\ndata: {")


def test_generation_that_begins_after_the_stream() -> None:
    """As in /v1/responses: its first events are out before `generate` is called."""
    late = context()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        responder = Responder(late, send, OnError.REPORT)
        first, end = parts(event({"type": "response.created", "response": {}}), b"")
        await responder(head(SSE))
        await responder(first)
        assert sent == [head(SSE), first]
        late.calls.append(call(proven(0)))
        late.settled = True
        await responder({**first, "body": event({"type": "response.completed", "response": {}})})
        await responder(end)

    asyncio.run(run())
    assert field_of(sent[2]["body"], "response")["choices"]


def test_messages() -> None:
    start = event({"type": "message_start", "message": {"stop_reason": None}}, "message_start")
    end = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}, "message_delta")
    stop = event({"type": "message_stop"}, "message_stop")
    sent = respond(context(call(proven(0))), [head(SSE), *parts(start, end, stop, b"")])
    assert [sent[1]["body"], sent[3]["body"]] == [start, stop]
    assert field_of(sent[2]["body"])["choices"][0]["proofs"] == ["proof 0"]


@pytest.mark.parametrize(
    "odd",
    [
        delta(0, '"finish_reason":"stop"'),
        delta(0, '\\"finish_reason\\":\\"stop"'),
        b'data: {"finish_reason":"stop"\n\n',
        b'data: {"finish_reason":"stop", "x": NaN}\n\n',
        b'data: {"finish_reason":"\xff\xfe"}\n\n',
        b'data: {"finish_reason":"stop"}\ndata: {}\n\n',
        b'data: {"finish_reason":"stop"}\n\n',
        b'data: {"choices":[],"finish_reason":"stop"}\n\n',
        b'data: {"choices":[{"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"index":"0","finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"index":0,"finish_reason":null,"stop_reason":"x"}]}\n\n',
        b'data: {"type":"message_delta","delta":null,"stop_reason":"x"}\n\n',
        b'data: {"type":"response.completed","response":null}\n\n',
        b'data: {"type":"response.completed"}\n\n',
        b'data: "finish_reason":"stop"\n\n',
        b': "finish_reason":"stop"\n\n',
        b'data: [{"finish_reason":"stop"}]\n\n',
        b'data: {"type":"response.completed","response":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}\n\n",
        b"\xff\xfe\n\n",
        b"\n\n\n\n",
        event({"error": {"message": "engine died"}}),
    ],
)
def test_odd_events_pass_as_they_are(odd: bytes) -> None:
    """And what follows them is extended as ever."""
    sent = stream(context(call(proven(0))), odd, delta(0, "", "stop"), DONE)
    assert sent.startswith(odd)
    assert sent.endswith(DONE)
    assert field_of(sent[len(odd) : -len(DONE)])["choices"]


def test_nested_as_deep_as_orjson_reads() -> None:
    """Python's own reader gives up earlier."""
    deep = b"[" * 1000 + b"]" * 1000
    sent = stream(
        context(call(proven(0))), b'data: {"type":"response.completed","response":{"a":' + deep + b"}}\n\n", DONE
    )
    assert sent.startswith(b'data: {"type":"response.completed","response":{"a":' + deep)
    assert sent.endswith(DONE)


def test_failing_on_error_in_a_stream() -> None:
    text, end = delta(0, "a"), delta(0, "", "stop")
    sent = stream(context(call(failed(0), proven(1))), text, end, delta(1, "", "stop"), DONE, on_error=OnError.FAIL)
    events = sent.split(b"\n\n")
    assert events[0] + b"\n\n" == text
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["code"] == "rows_missing"
    assert json.loads(events[2].removeprefix(b"data: "))["toploc_proofs"]["choices"][0]["index"] == 1
    assert sent.endswith(DONE)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        ("response.completed", {"type": "response.completed", "response": {"id": "r"}}),
    ],
)
def test_failing_in_a_stream_whose_events_have_names(name: str, end: dict[str, Any]) -> None:
    """A client that goes by the name must not take the error for the event that it stands for."""
    sent = stream(context(call(failed(0))), event(end, name), on_error=OnError.FAIL)
    head_, data, *rest = sent.split(b"\n")
    assert (head_, rest) == (b"event: error", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["error"]["code"] == "rows_missing"


def test_stream_that_the_client_left() -> None:
    """The application stops in the middle of an event; what was sent is whole events."""
    sent = respond(context(call(proven(0))), [head(SSE), *parts(delta(0, "a"), b'data: {"choi', b"")[:2]])
    assert [message.get("body") for message in sent[1:]] == [delta(0, "a")]
