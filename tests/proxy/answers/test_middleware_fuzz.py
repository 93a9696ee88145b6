"""Whatever an application sends and however it is divided, the middleware adds its field and changes nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from states import server
from toploc_proxy.answers.context import Call, current
from toploc_proxy.answers.middleware import ProofMiddleware
from toploc_proxy.receipts import delivered
from toploc_proxy.receipts.signing import Signer
from toploc_proxy.settings import Settings
from toploc_proxy.stores.receipts import MemoryStore
from toploc_proxy.verify.role import VerifierOnly

from toploc.protocol import ChoiceProofs, ToplocProofs
from toploc.receipts.keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
MARKER = b'"toploc_proofs":'
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vllm.toploc")


def generate(choices: int) -> None:
    """What a route's call of `generate` leaves behind."""
    context = current.get()
    if context is not None and choices:
        proven = {i: ChoiceProofs(index=i, token_ids=(i,), proofs=("p",)) for i in range(choices)}
        context.calls.append(Call("model", choices, None, [1, 2], proven, request_id="id"))
        context.settled = True


def scope_of(path: str = "/chat", method: str = "POST", **more: Any) -> dict[str, Any]:
    state = SimpleNamespace(toploc=server())
    headers = [(b"content-type", b"application/json")]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "headers": headers,
        "app": SimpleNamespace(state=state),
        **more,
    }


def run(app: ASGIApp, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """What `app` sends."""
    waiting, sent = list(received), []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def body_of(sent: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent[1:])


def divided(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)])]


def without_field(data: bytes) -> tuple[bytes, int]:
    """The bytes without the fields that were added, and how many there were."""
    found = 0
    while (at := data.find(MARKER)) >= 0:
        value = data[at + len(MARKER) :].decode("utf-8", "surrogateescape")
        field, length = json.JSONDecoder().raw_decode(value)
        ToplocProofs.model_validate_json(json.dumps(field))
        rest = value[length:].encode("utf-8", "surrogateescape")
        data = data[:at].removesuffix(b",") + rest
        found += 1
    return data, found


# Answers of an application. Texts hold what ends events, strings and characters elsewhere.

TEXTS = st.sampled_from(
    ["é🙂漢", '"finish_reason":"stop"', "\u2028\r\n\r\n", "}", '\\"', "data: {", "\n\n", "[DONE]", "\ud83d", "", "a"]
)
ENDS = st.sampled_from(
    [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "text": "", "finish_reason": "length", "stop_reason": None}]},
        {"choices": [{"index": -1, "finish_reason": "stop"}]},
        {"choices": [{"index": 10**30, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}]},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "response.completed", "response": {"id": "r", "output": []}},
        {"type": "response.incomplete", "response": None},
        {"choices": [], "usage": {"completion_tokens": 2}},
        {"error": {"message": "the engine died"}},
    ]
)
DELTAS = st.builds(lambda i, text: {"choices": [{"index": i, "delta": {"content": text}}]}, st.integers(0, 2), TEXTS)
DOCUMENTS = st.tuples(ENDS | DELTAS | ENDS | TEXTS | ENDS, st.booleans(), st.sampled_from([None, 2])).map(
    lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1], indent=drawn[2]).encode("utf-8", "surrogatepass")
)
BROKEN = st.sampled_from(
    [
        b'{"choices":[{"index":0,"finish_reason":"stop"}',
        b'{"finish_reason":"stop","x":NaN}',
        b'{"choices":[{"index":0,"text":"\xff","finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"text":"\xf0\x9f","finish_reason":"stop"}]}',
        b'{"x":' + b"[" * 3000 + b"]" * 3000 + b',"finish_reason":"stop"}',
        b'{"choices":[{"index":0,"text":' + b'{"a":' * 3000 + b"1" + b"}" * 3001 + b"]}",
        b"{,}",
        b"{",
        b"}",
        b"\x00",
        b"",
        gzip.compress(b'{"finish_reason":"stop"}', mtime=0),
    ]
)
LINES = st.sampled_from([b"", b"event: response.completed\n", b"id: 7\n", b": note\n", b"retry: 1\n"])
EVENTS = st.tuples(LINES, st.sampled_from([b"data: "] * 4 + [b"data:", b""]), DOCUMENTS | BROKEN | DOCUMENTS).map(
    b"".join
)
STREAMS = st.lists(
    st.tuples(EVENTS | st.sampled_from([b"data: [DONE]", b": keep-alive"]), st.sampled_from([b"\n\n", b"\r\n\r\n"])),
    max_size=8,
).map(lambda events: b"".join(part for event in events for part in event))
CONTENT_TYPES = st.sampled_from(
    [
        b"text/event-stream",
        b"text/event-stream; charset=utf-8",
        b"application/json",
        b"Application/JSON; a",
        b"a/b",
        None,
    ]
)
HEADERS = st.lists(
    st.sampled_from(
        [(b"content-encoding", b"gzip"), (b"etag", b'"x"'), (b"X-Request-Id", b"7"), (b"set-cookie", b"a")]
    ),
    max_size=1,
)
STATUSES = st.sampled_from([200] * 9 + [201, 204, 206, 304, 400, 500])


@pytest.mark.parametrize("signed", [False, True])
@FUZZ
@given(
    STATUSES,
    CONTENT_TYPES,
    HEADERS,
    STREAMS | DOCUMENTS | BROKEN,
    st.lists(st.integers(0, 10**4), max_size=6),
    st.sampled_from([2, 1, 3, 0]),
    st.sampled_from([-1, 0, -1, 1, 3]),
)
@example(200, b"text/event-stream", [], b'data: {"choices":[{"index":0,"text":"\xff"}]}\n\n', [3, 9], 2, -1)
@example(200, b"text/event-stream", [], b'data: {"x":' + b"[" * 3000 + b"]" * 3000 + b"}\n\n", [3, 9], 2, -1)
def test_only_the_field_is_added(
    signed: bool,
    status: int,
    content_type: bytes | None,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    cuts: list[int],
    choices: int,
    settled_at: int,
) -> None:
    """The same application with and without the middleware, message by message."""
    if content_type is not None:
        headers = [(b"content-type", content_type), *headers]
    pieces = divided(body, cuts)

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        length = [(b"content-length", str(len(body)).encode())] if b"event" not in (content_type or b"") else []
        if settled_at < 0:
            generate(choices)
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        for i, piece in enumerate([*pieces, b""]):
            if i == min(settled_at, len(pieces)):
                generate(choices)
            await send({"type": "http.response.body", "body": piece, "more_body": i < len(pieces)})

    scope = scope_of()
    if signed:
        scope["app"].state.toploc = server(signer=Signer(KEY, (KEY.public,), MemoryStore()))
    request = {"type": "http.request", "body": b"{}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivered, "FOLD", 2)
        plain, ours = run(app, scope, request), run(ProofMiddleware(app, Settings(channel="/n")), scope, request)
    assert [message["type"] for message in ours].count("http.response.start") == 1
    assert [message.get("more_body", False) for message in ours[1:]].count(False) == 1
    assert ours[0]["status"] == status
    stripped, fields = without_field(body_of(ours))
    assert stripped == body
    if fields == 0 and body_of(ours) == body and b"event" not in (content_type or b""):
        assert ours[0] == plain[0]
    told = dict(ours[0]["headers"]).get(b"content-length")
    assert told is None or int(told) == len(body_of(ours))
    assert fields == 0 or (choices and status < 400 and (b"content-encoding", b"gzip") not in headers)
    assert current.get() is None


def test_a_stream_cut_at_every_byte() -> None:
    """After the first settled choice; characters of four bytes and both ends of lines are cut too."""
    text = {"choices": [{"index": 0, "delta": {"content": 'é🙂 "finish_reason":"x" }\r\n\r\n'}, "finish_reason": None}]}
    ends = [{"choices": [{"index": i, "delta": {"content": "🙂"}, "finish_reason": "stop"}]} for i in (0, 1)]
    body = b"".join(
        b"data: " + json.dumps(document, ensure_ascii=False).encode() + end
        for document, end in [(text, b"\n\n"), (ends[0], b"\r\n\r\n"), (text, b"\n\n"), (ends[1], b"\n\n")]
    )
    body += b"data: [DONE]\n\n"
    replies = set()
    for cut in range(len(body) + 1):

        async def app(_scope: Any, receive: Any, send: Any, cut: int = cut) -> None:
            await receive()
            generate(2)
            head = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            for i, piece in enumerate((body[:cut], body[cut:], b"")):
                await send({"type": "http.response.body", "body": piece, "more_body": i < 2})

        scope = scope_of()
        ours = run(ProofMiddleware(app, Settings(channel="/n")), scope, {"type": "http.request", "body": b"{}"})
        replies.add(body_of(ours))
    [reply] = replies
    assert without_field(reply) == (body, 2)


# Requests

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
OPTIONS = VALUES | st.dictionaries(st.sampled_from(["enabled", "prompt_token_ids", "x"]), VALUES, max_size=2)
REQUESTS = (
    st.binary(max_size=60)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.tuples(OPTIONS, VALUES, st.sampled_from(["utf-8", "utf-16", "utf-32"])).map(
        lambda drawn: json.dumps({"toploc": drawn[0], "x": drawn[1]}).encode(drawn[2])
    )
)


@FUZZ
@given(REQUESTS, st.lists(st.integers(0, 100), max_size=4), st.none() | st.integers(0, 4))
@example(b'{"toploc":' + b"[" * 900 + b"]" * 900 + b"}", [], None)
@example(b'{"toploc":{"enabled":true},"toploc":{"enabled":1}}', [3], None)
def test_the_application_gets_the_request_as_it_came(data: bytes, cuts: list[int], leaves_at: int | None) -> None:
    """Or the client gets a 400 about its options, and the application nothing."""
    pieces = divided(data, cuts)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1} for i, piece in enumerate(pieces)
    ]
    if leaves_at is not None:
        messages[leaves_at % len(messages) :] = [{"type": "http.disconnect"}]
    seen = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive() for _ in range(len(messages) + 1)])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    sent = run(ProofMiddleware(app, Settings(channel="/n")), scope_of(), *messages)
    if sent[0]["status"] == 400:
        assert seen == []
        error = json.loads(body_of(sent))["error"]
        assert (error["type"], error["code"]) == ("BadRequestError", "invalid_value")
    else:
        assert seen == [*messages, {"type": "http.disconnect"}]
    assert current.get() is None


# Behind a prefix (`--root-path`), which some proxies leave in the path


@pytest.mark.parametrize("path", ["/api/v1/toploc/verify", "/v1/toploc/verify"])
def test_the_body_of_a_verification_is_not_read_under_a_root_path(path: str) -> None:
    """The route reads it, up to its limit."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def never() -> Any:
        raise AssertionError("the middleware read it")

    async def main() -> list[int]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await ProofMiddleware(app, Settings(channel="/n"))(scope_of(path, root_path="/api"), never, send)
        return [sent[0]["status"]]

    assert asyncio.run(main()) == [413]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/toploc/verify", 200),
        ("/v1/toploc/verify", 200),
        ("/api/tokenize", 200),
        ("/api/v1/chat/completions", 404),
        ("/api/v1/toplocked", 404),
        ("/v1/chat/completions", 404),
    ],
)
def test_a_verifier_under_a_root_path(path: str, status: int) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent = run(VerifierOnly(app), scope_of(path, root_path="/api"))
    assert sent[0]["status"] == status
