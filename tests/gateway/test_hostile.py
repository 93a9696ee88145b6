"""Upstreams that would like to get by the checks or break the gateway, and applications that would like to."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from lying_provider import EVIL, LyingProvider
from starlette.responses import RedirectResponse, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parties import Provider, Running

FOREVER = {"quarantine": {"after": []}}


class Raw:
    """A server that answers each request with the same bytes, whatever they are."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the gateway may leave first
                self._reply_to(connection)

    def _reply_to(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += connection.recv(65536)
        described = b"GET /v1/toploc" in asked
        connection.sendall(b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n" if described else self._reply)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw(reply: bytes) -> Iterator[Any]:
    made = Raw(reply)
    yield made
    made.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
REPLIES = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "CRLF in a header": OK + b"x-a: b\r\x00c: d\r\ncontent-length: 2\r\n\r\n{}",
    "a header without an end": OK + b"x: " + b"a" * 500_000,
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 9\r\n\r\n{}",
    "too short": OK + b"content-length: 900\r\n\r\n{}",
    "chunks that are none": OK + b"transfer-encoding: chunked\r\n\r\nZZ\r\n{}",
    "no last chunk": OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "an encoding that is unknown": OK + b"content-encoding: x-evil\r\ncontent-length: 2\r\n\r\n{}",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n{}",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_what_is_no_reply(start: Callable[..., Running], reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with raw(reply) as upstream:
        gateway = start(upstream, timeouts={"read": 2}, policy=FOREVER)
        for stream in (False, True):
            got = gateway.http.post("/v1/chat/completions", json={"model": "toploc-mini", "stream": stream})
            assert got.status_code == 424, got.text
            assert got.json()["error"]["code"] in ("broken", "encoded", "missing")
        assert gateway.http.get("/toploc/health").status_code == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("field", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed_nor_handed_on(
    start: Callable[..., Running], provider: Provider, other: Provider, status: int, field: bool
) -> None:
    provider.other = lambda _: RedirectResponse(f"{other.url}/v1/chat/completions", status)
    gateway = start(provider, policy=FOREVER)
    for reply in (gateway.ask(provider), gateway.http.get("/v1/files" if field else "/v1/models")):
        assert (reply.status_code, reply.json()["error"]["code"]) == (424, "redirect")
        assert "location" not in reply.headers
    assert other.requests == []


def test_an_upstream_says_nothing_in_the_gateways_name(start: Callable[..., Running], provider: Provider) -> None:
    provider.headers = {"toploc-verdict": "accepted", "toploc-report": "x", "TOPLOC-Tried": "y"}
    gateway = start(provider, policy={"audit_rate": 0, **FOREVER})
    reply = gateway.ask(provider)
    assert reply.headers.get_list("toploc-verdict") == ["unchecked"]
    assert {"toploc-report", "toploc-tried"}.isdisjoint(reply.headers)
    provider.other = lambda _: Response(b"{}", 200, {"toploc-verdict": "accepted"})
    assert "toploc-verdict" not in gateway.http.get("/v1/files").headers


@pytest.mark.parametrize("when", ["inline", "background"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_a_compressed_answer_is_not_read(
    start: Callable[..., Running], provider: Provider, when: str, encoding: str
) -> None:
    """One of a kilobyte may be a gigabyte."""
    provider.other = lambda _: Response(gzip.compress(bytes(10**7)), 200, {"content-encoding": encoding})
    reply = start(provider, policy={"when": when, **FOREVER}).ask(provider)
    assert (reply.status_code, reply.json()["error"]["code"]) == (424, "encoded")


@pytest.mark.parametrize("limit", ["answer_bytes", "held_bytes"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_end(start: Callable[..., Running], provider: Provider, stream: bool, limit: str) -> None:
    provider.lying.content = b"data: {}\n\n" * 30_000 if stream else b"[" * 300_000
    provider.lying.content_type = "text/event-stream" if stream else "application/json"
    gateway = start(provider, limits={limit: 100_000}, policy=FOREVER)
    for _ in range(2):  # what the first one took is given back
        reply = gateway.ask(provider, stream=stream)
        assert (reply.status_code, reply.json()["error"]["code"]) == (424, "too_long")
    provider.lying.content = None
    assert gateway.ask(provider, stream=stream).headers["toploc-verdict"] == "accepted"


BODIES = {
    "empty": b"",
    "no JSON": b"<html>",
    "no object": b"[1, 2]",
    "cut": b'{"id": "a", "choices": [',
    "nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a list nested": b"[" * 100_000,
    "no UTF-8": b'{"choices": "\xff\xfe", "toploc_proofs": 3}',
    "UTF-16": '{"choices": []}'.encode("utf-16"),
    "numbers that are none": b'{"id": NaN, "choices": [{"index": Infinity}], "toploc_proofs": {"version": 1}}',
    "a number without end": b'{"id": ' + b"9" * 10_000 + b', "choices": []}',
    "half a character": b'{"id": "\\ud800\\u0000", "choices": [], "toploc_proofs": {"version": 1}}',
    "a field of junk": b'{"id": 3, "choices": {}, "toploc_proofs": [[]]}',
    "the name of another kind": b'{"id": {"a": 1}, "object": [], "choices": [null], "toploc_proofs": {}}',
    "twice": b'{"toploc_proofs": 1, "toploc_proofs": null, "choices": 5}',
}


@pytest.fixture(scope="module")
def lenient(start_once: Callable[..., Running], module_provider: Provider) -> Running:
    return start_once(module_provider, policy=FOREVER)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", ""])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_no_answer(
    lenient: Running, module_provider: Provider, body: bytes, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = b"data: " + body.replace(b"\n", b"") + b"\n\ndata: [DONE]\n\n" if kind == "text/event-stream" else body
    module_provider.other = lambda _: Response(made, 200, {"content-type": kind})
    for extra in ({}, {"stream": True}):
        reply = lenient.ask(module_provider, **extra)
        assert reply.status_code == 424, reply.text
        assert reply.json()["error"]["code"] in ("missing", "undecided", "rejected")
        assert lenient.report(reply)["verdict"] == reply.json()["error"]["code"]
    assert "Traceback" not in caplog.text


def evil_delta(events: list[dict[str, Any]]) -> None:
    events[3]["choices"][0]["delta"]["content"] = EVIL


def unproven(response: dict[str, Any]) -> None:
    response["toploc_proofs"]["choices"][0] = {"index": 0, "token_ids": [], "error": {"code": "x", "message": ""}}


def twice(response: dict[str, Any]) -> None:
    for part in (response, response["toploc_proofs"]):
        part["choices"].append({**part["choices"][0], "index": 1})


ATTACKS: dict[str, Callable[[LyingProvider], Any]] = {
    "another text": lambda p: setattr(p, "change", lambda r: r["choices"][0]["message"].update(content=EVIL)),
    "an event that says something else": lambda p: setattr(p, "events", evil_delta),
    "after the end": lambda p: setattr(p, "events", lambda e: [*e, b"data: [DONE]\n\n", {**e[1]}]),
    "two choices": lambda p: setattr(p, "change", twice),
    "junk in the field": lambda p: setattr(p, "change", lambda r: r.update(toploc_proofs="none")),
    "an error in place of proofs": lambda p: setattr(p, "change", unproven),
    "no field": lambda p: setattr(p, "change", lambda r: r.pop("toploc_proofs") and None),
    "one id for two requests": lambda p: setattr(p, "fresh", False),
}


OF_STREAMS = ("an event that says something else", "after the end")


@pytest.mark.parametrize(
    ("attack", "stream"),
    [(name, stream) for name in ATTACKS for stream in (False, True) if stream or name not in OF_STREAMS],
)
def test_attacks(lenient: Running, module_provider: Provider, attack: str, stream: bool) -> None:
    module_provider.other = None
    module_provider.lying = LyingProvider("greedy")
    module_provider.lying.fresh = True
    ATTACKS[attack](module_provider.lying)
    if attack == "one id for two requests":
        lenient.ask(module_provider, user="before")
    reply = lenient.ask(module_provider, stream=stream)
    assert reply.status_code == 424, (reply.headers, reply.text)
    assert EVIL[:5] not in reply.text


# Applications

PATHS = [
    *("/v1/chat/completions/../files", "/v1/files/..%2fchat/completions", "/v1//chat/completions", "/v1/files/%2e%2e"),
    *("/v1/chat/completions;x", "/v1/chat%5ccompletions", "/v1/chat/completions%23/files", "/v1/a%3fb", "/v1/%00"),
    *("/v1/chat/completions%252ffiles", "/v1/./files"),
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_two_servers_read_differently(lenient: Running, module_provider: Provider, path: str) -> None:
    module_provider.requests.clear()
    with socket.create_connection(("127.0.0.1", lenient.served.port)) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}".encode()
        )
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.split()[1] in (b"400", b"424"), reply
    assert b"unsafe_path" in reply
    assert module_provider.requests == []


REQUESTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed_body"),
    "no object": ({"json": [1]}, 400, "malformed_body"),
    "UTF-16": ({"content": '{"model": "m"}'.encode("utf-16")}, 400, "malformed_body"),
    "nested": ({"content": b'{"a":' * 100_000}, 400, "malformed_body"),
    "too large": ({"content": b" " * 2_000_001}, 413, "too_large"),
    "compressed": ({"content": b"{}", "headers": {"content-encoding": "gzip"}}, 415, "content_encoding"),
    "of another model": ({"content": b'{"model": "\\ud800\\n\\u0000x"}'}, 404, "model_not_found"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_that_are_refused(start_once: Callable[..., Running], module_provider: Provider, name: str) -> None:
    gateway = start_once(module_provider, limits={"body_bytes": 2_000_000})
    given, status, code = REQUESTS[name]
    reply = gateway.http.post("/v1/chat/completions", **given)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    anthropic = gateway.http.post("/v1/messages", **given).json()
    assert (anthropic["type"], anthropic["error"]["code"]) == ("error", code)


def test_a_body_that_does_not_come(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, timeouts={"body": 0.3})
    with socket.create_connection(("127.0.0.1", gateway.served.port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 90\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_no_more_requests_than_the_limit(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, limits={"requests": 1}, policy={"when": "background"})
    provider.pause = 0.05
    with gateway.http.stream("POST", "/v1/chat/completions", json={**provider.lying.request, "stream": True}) as first:
        parts = first.iter_raw()
        next(parts)
        second = gateway.ask(provider)
        assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_requests")
        assert second.headers["retry-after"] == "1"
    gateway.eventually(lambda: gateway.gateway.running == 0)
    assert gateway.ask(provider).status_code == 200


def test_a_websocket(lenient: Running) -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
    with socket.create_connection(("127.0.0.1", lenient.served.port)) as connection:
        connection.sendall(b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\n" + upgrade + b"\r\n")
        connection.settimeout(5)
        assert b"101" not in connection.recv(65536).split(b"\r\n")[0]


def test_application_leaves_while_an_answer_is_held(start: Callable[..., Running], provider: Provider) -> None:
    """What was asked for is checked and kept all the same."""
    gateway = start(provider)
    provider.pause = 0.3
    body = json.dumps(provider.lying.request).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", gateway.served.port)) as connection:
        connection.sendall(head + body)
        gateway.eventually(lambda: provider.requests)
    gateway.eventually(lambda: gateway.upstream()["answers"] == {"toploc-mini": {"accepted": 1}})
