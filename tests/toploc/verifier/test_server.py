"""Servers that are down, busy, broken or hostile, as a verifier that asks them sees it. Real ones: tests/engine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from toploc.errors import MalformedEvidence, ToplocError, VerifierUnavailable
from toploc.report import REQUIRED, Check, Report
from toploc.verifier import replies as module
from toploc.verifier.server import AsyncVerifier, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPORT = Report.of([Check(name=name, status="passed", message="fine") for name in REQUIRED])  # type: ignore[arg-type]
ITEM = {"request": {}, "response": {}}

Reply = tuple[int, dict[str, str], bytes]


@contextmanager
def serving(replies: Callable[[int], Reply]) -> Iterator[str]:
    """A server whose n-th reply is `replies(n)`."""
    asked = iter(range(1000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, body = replies(next(asked))
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAIT", 0.01)


def both(url: str, **options: Any) -> Iterator[Callable[[Any], Report]]:
    with Verifier(url, **options) as verifier:
        yield verifier.verify

    async def ask(evidence: Any) -> Report:
        async with AsyncVerifier(url, **options) as verifier:
            return await verifier.verify(evidence)

    yield lambda evidence: asyncio.run(ask(evidence))


def ok(body: bytes = REPORT.model_dump_json().encode()) -> Reply:
    return 200, {}, body


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(lambda n: ok() if n % 3 == 2 else (status, {"retry-after": "86400"}, b"busy")) as url:
        for verify in both(f"{url}/v1/"):
            assert verify(ITEM) == REPORT
    with serving(lambda _: (status, {}, b"busy")) as url:
        for verify in both(url, retries=1):
            with pytest.raises(VerifierUnavailable, match=f"HTTP {status}: busy"):
                verify(ITEM)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((200, {}, b"{}"), "no report"),
        ((200, {}, b'{"verdict":' * 1000), "no report"),
        ((401, {}, b'{"error": {"message": "Unauthorized"}}'), "HTTP 401: Unauthorized"),
        ((404, {}, b"\xff"), "HTTP 404"),
    ],
)
def test_replies_that_are_no_reports(reply: Reply, said: str) -> None:
    with serving(lambda _: reply) as url:
        for verify in both(url):
            with pytest.raises(VerifierUnavailable, match=said):
                verify(ITEM)


@pytest.mark.parametrize("status", [413, 422, 500])
def test_a_refusal_that_the_answer_can_bring_about_is_a_report(status: int) -> None:
    with serving(lambda _: (status, {}, b'{"error": {"message": "too much"}}')) as url:
        for verify in both(url):
            report = verify(b"{}")
            assert (report.verdict, report.checks[0].reason) == ("undecided", "refused")
            assert "too much" in report.checks[0].message


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_refusal_of_a_batch_says_nothing_of_its_answers(status: int) -> None:
    reply = (status, {}, b'{"error": {"message": "too much"}}')
    expected = pytest.raises(VerifierUnavailable, match=f"HTTP {status}: too much")
    with serving(lambda _: reply) as url, Verifier(url) as verifier, expected:
        list(verifier.verify_many([b"{}", b"{}"]))


def test_malformed_evidence_is_a_report() -> None:
    body = json.dumps({"error": {"message": "request: missing", "code": "malformed_evidence"}}).encode()
    with serving(lambda _: (400, {}, body)) as url:
        for verify in both(url):
            report = verify(b"{}")
            assert report.verdict == "undecided"
            assert "request: missing" in str(report)


def test_limits_of_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: ok(bytes(3000))) as url:
        monkeypatch.setattr(module, "MAX_REPORT", 2000)
        for verify in both(url):
            with pytest.raises(VerifierUnavailable, match="longer than 2,000"):
                verify(ITEM)
    with serving(lambda _: (200, {"content-length": "9"}, b"x")) as url:
        for verify in both(url, timeout=0.2, retries=0):
            with pytest.raises(VerifierUnavailable):
                verify(ITEM)


def test_time_is_for_all_attempts_together() -> None:
    """A server that hangs is not asked five times as long."""
    asked, over = [], threading.Event()

    def hang(n: int) -> Reply:
        asked.append(n)
        over.wait()
        return ok()

    with serving(hang) as url:
        for verify in both(url, timeout=0.3):
            with pytest.raises(VerifierUnavailable):
                verify(ITEM)
        over.set()
    assert len(asked) == 2


def test_an_address_that_swallows_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody accepts, and the queue for it is full: the kernel drops what would be the next connection."""
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.1)
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        for verify in both(f"http://127.0.0.1:{listening.getsockname()[1]}", retries=0):
            with pytest.raises(VerifierUnavailable, match=r"(?i)timed out|timeout"):
                verify(ITEM)


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x"])
def test_other_urls(url: str) -> None:
    with pytest.raises(ToplocError, match="http://"):
        Verifier(url)


def test_nobody_there() -> None:
    for verify in both("http://127.0.0.1:9", retries=1):
        with pytest.raises(VerifierUnavailable):
            verify(ITEM)


def test_what_json_cannot_say() -> None:
    for verify in both("http://127.0.0.1:9"):
        for value in ({"request": {1, 2}}, {"request": float("nan")}, "\ud800"):
            with pytest.raises(MalformedEvidence):
                verify(value)


def line(index: int, **error: Any) -> bytes:
    rest = error or {"report": REPORT.model_dump()}
    return json.dumps({"index": index, **rest}).encode() + b"\n"


def many(url: str, count: int, **options: Any) -> Iterator[list[tuple[int, Report | ToplocError]]]:
    with Verifier(url, **options) as verifier:
        yield list(verifier.verify_many([ITEM] * count))

    async def ask() -> list[tuple[int, Report | ToplocError]]:
        async with AsyncVerifier(url, **options) as verifier:
            return [replies async for replies in verifier.verify_many([ITEM] * count)]

    yield asyncio.run(ask())


def test_many_in_order_of_completion() -> None:
    refused = {"message": "items[0]: missing", "code": "malformed_evidence"}
    body = line(2) + b"\n" + line(0, error=refused) + line(1, error={"message": "slow", "code": "verification_timeout"})
    with serving(lambda n: (200, {}, body) if n % 2 else (503, {}, b"")) as url:
        for replies in many(url, 3):
            assert [index for index, _ in replies] == [2, 0, 1]
            assert replies[0][1] == REPORT
            assert isinstance(replies[1][1], Report)
            assert replies[1][1].verdict == "undecided"
            assert isinstance(replies[2][1], ToplocError)


@pytest.mark.parametrize(
    "body", [line(0), line(0) + line(0), line(7), line(0) + b"[]\n", b'{"index": 0}\n', line(0) + line(1)[:-9]]
)
def test_a_batch_that_ends_early_or_lies(body: bytes) -> None:
    with serving(lambda _: ok(body)) as url, pytest.raises(VerifierUnavailable):
        list(many(url, 2, retries=1))


@pytest.mark.parametrize("count", [0, 1001])
def test_sizes_of_batches(count: int) -> None:
    with pytest.raises(ToplocError, match="1 to 1,000"):
        list(many("http://127.0.0.1:9", count))


def test_description() -> None:
    with serving(lambda _: ok(b'{"scheme": "toploc-gf65497"}')) as url, Verifier(url) as verifier:
        assert verifier.describe()["scheme"] == "toploc-gf65497"


@pytest.mark.parametrize("reply", [ok(b"[]"), ok(b"<html>"), (404, {}, b"")])
def test_other_servers_describe_nothing(reply: Reply) -> None:
    with serving(lambda _: reply) as url, Verifier(url) as verifier, pytest.raises(VerifierUnavailable):
        verifier.describe()
