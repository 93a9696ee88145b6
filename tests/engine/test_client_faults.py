"""Verifiers that break and full disks while `toploc_client` checks answers: each is delivered, and none lost."""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
from toploc_client import OpenAI, Verifier, read_lines

from toploc.verifier.command import main as verify_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toploc_proxy.local_server import LocalServer

CHAT: dict[str, Any] = {"model": "toploc-mini", "messages": [{"role": "user", "content": "What is 17 + 25?"}]}
# Of an attempt that is never answered. One that is takes less, also on a busy machine.
PATIENCE = 5.0
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"


class BreakingVerifier(socketserver.ThreadingTCPServer):
    """Passes requests on to a real one, and breaks in between, in each of the ways of `FAULTS` in turn."""

    FAULTS = ("none", "hangs", "drips", "noise", "a page", "closes at once", "closes mid-body", "fails", "is busy")
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.behind = url
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.met: Counter[str] = Counter()
        self.over = threading.Event()
        self._faults = cycle(self.FAULTS)
        self._lock = threading.Lock()

    def next_fault(self) -> str:
        with self._lock:
            fault = next(self._faults)
            self.met[fault] += 1
        return fault

    def meet(self, *faults: str) -> None:
        """These in turn from now on."""
        with self._lock:
            self._faults = cycle(faults)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Connection(socketserver.StreamRequestHandler):
    """One request each."""

    server: BreakingVerifier

    def handle(self) -> None:
        lines = iter(self.rfile.readline, b"\r\n")
        sizes = [int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")]
        body = self.rfile.read(*sizes)
        match self.server.next_fault():
            case "none":
                self._reply(self._report(body))
            case "hangs":
                self.server.over.wait()
            case "drips":
                self.wfile.write(HEAD % 10_000)
                while not self.server.over.wait(0.1):
                    self.wfile.write(b" ")
            case "noise":
                self.wfile.write(bytes(range(256)) * 64)
            case "a page":
                self._reply(b"<html>Welcome to nginx!</html>")
            case "closes at once":
                # With a reset, as when the process is killed.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            case "closes mid-body":
                report = self._report(body)
                self.wfile.write(HEAD % len(report) + report[: len(report) // 2])
            case "fails":
                self.wfile.write(b"HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            case "is busy":
                self.wfile.write(b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    def _report(self, body: bytes) -> bytes:
        headers = {"content-type": "application/json"}
        reply = httpx.post(f"{self.server.behind}/v1/toploc/verify", content=body, headers=headers, timeout=60)
        return reply.raise_for_status().content

    def _reply(self, content: bytes) -> None:
        self.wfile.write(HEAD % len(content) + content)


@pytest.fixture
def breaking(server: LocalServer) -> Iterator[BreakingVerifier]:
    with BreakingVerifier(server.url) as verifier:
        yield verifier


def ids(path: Path) -> list[str]:
    """Of the answers in a file of evidence, whose every line is whole."""
    lines = list(read_lines(path)) if path.exists() else []
    assert all(line.problem is None for line in lines)
    return [json.loads(line.data or b"")["response"]["id"] for line in lines]


def ask(client: OpenAI, number: int) -> str:
    """The id of an answer that came whole, every other one in a stream."""
    result: Any = client.chat.completions.create(**CHAT, max_tokens=10 + number, stream=number % 2 == 1)
    parts = list(result) if number % 2 else [result]
    assert any(choice.finish_reason for part in parts for choice in part.choices)
    assert result.toploc_proofs.choices[0].proofs
    return str(parts[0].id)


def test_a_verifier_that_breaks_in_every_way(server: LocalServer, breaking: BreakingVerifier, tmp_path: Path) -> None:
    """The application sees its answers; each is accepted or spooled, and the spool can be verified later. Where a
    verifier refuses, which the maker of an answer can bring about, it is undecided."""
    spool, rounds = tmp_path / "spool.jsonl", 5
    with Verifier(breaking.url, timeout=PATIENCE, retries=0) as verifier:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none", verifier=verifier, when="background", spool=spool)
        with client, ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(ask, [client] * 45, range(rounds * len(breaking.FAULTS))))
            assert client.flush_checks(120)
            counts = client.checks
            assert (counts.rejected, counts.lost, counts.unchecked) == (0, 0, 0)
            assert set(breaking.met.values()) == {rounds}
            assert (counts.accepted, counts.undecided) == (rounds, rounds)
            assert counts.spooled == len(asked) - 2 * rounds
            spooled = ids(spool)
            assert len(set(spooled)) == len(spooled) == counts.spooled
            assert set(spooled) < set(asked)
            assert verify_command([str(spool), "--verifier", server.url]) == 0
            # It goes on by itself once the verifier is well.
            breaking.meet("none")
            list(pool.map(ask, [client] * 9, range(9)))
            assert client.flush_checks(120)
            found = counts.accepted, counts.undecided, counts.rejected, counts.unchecked, counts.lost, counts.spooled
            assert found == (rounds + 9, rounds, 0, 0, 0, len(spooled))
            # Whoever waits for the check waits so long, and has the answer then.
            breaking.meet("hangs")
            inline = client.with_options(when="inline")
            assert ask(inline, 1) == ids(spool)[-1]
            assert inline.checks.spooled == 1


def test_a_verifier_that_recovers_between_attempts(
    server: LocalServer, breaking: BreakingVerifier, tmp_path: Path
) -> None:
    """What another attempt may mend is asked again; what comes from something else than a verifier is not."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", spool=tmp_path / "spool.jsonl")
    outcomes = []
    with client, Verifier(breaking.url, timeout=60, retries=4) as verifier:
        for fault in breaking.FAULTS[3:]:
            breaking.meet(fault, "none")
            checking = client.with_options(verifier=verifier, on_undecided="warn")
            ask(checking, 2)
            counts = checking.checks
            outcomes.append((fault, counts.accepted, counts.spooled, counts.undecided))
    once = {"a page": (0, 1, 0), "fails": (0, 0, 1)}
    assert outcomes == [(fault, *once.get(fault, (1, 0, 0))) for fault in breaking.FAULTS[3:]]


APPLICATION = """
    import json, resource, sys, time
    from concurrent.futures import ThreadPoolExecutor
    from toploc_client import OpenAI, Verifier

    chat = json.loads(sys.argv[2])
    nobody = Verifier("http://127.0.0.1:9", retries=0)
    client = OpenAI(base_url=sys.argv[1], api_key="none", verifier=nobody, when="background",
                    evidence=sys.argv[3], spool=sys.argv[4])

    def ask(number):
        answer = client.chat.completions.create(**chat, max_tokens=10 + number)
        assert answer.toploc_proofs.choices[0].proofs
        return answer.id

    def run(count):
        with ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(ask, range(count)))
        assert client.flush_checks(60)
        print(json.dumps([asked, vars(client.checks)]), flush=True)
"""
FULL_DISK = """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    run(32)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(8)
"""
KILLED = """
    client = client.with_options(verifier=lambda evidence: time.sleep(600))
    with ThreadPoolExecutor(8) as pool:
        print(json.dumps(list(pool.map(ask, range(16)))), flush=True)
    time.sleep(600)
"""


def application(server: LocalServer, script: str, *files: Path) -> subprocess.Popen[str]:
    code = textwrap.dedent(APPLICATION) + textwrap.dedent(script)
    arguments = [f"{server.url}/v1", json.dumps(CHAT), *map(str, files)]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_full_disks(server: LocalServer, tmp_path: Path) -> None:
    """No file grows beyond 20,000 bytes: what is not stored is said by its id, and what is stored is whole."""
    evidence, spool = tmp_path / "evidence.jsonl", tmp_path / "spool.jsonl"
    with application(server, FULL_DISK, evidence, spool) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (asked, full), (later, after) = map(json.loads, out.splitlines())
    assert len(set(asked)) == 32
    assert min(full["spooled"], full["lost"]) > 0
    assert full["spooled"] + full["lost"] == 32
    lost = {one for one in asked if f"answer {one} was not checked and is lost" in err}
    assert len(lost) == full["lost"]
    # Storing goes on by itself.
    assert (after["spooled"], after["lost"]) == (full["spooled"] + 8, full["lost"])
    assert set(ids(spool)) == {*asked, *later} - lost
    not_stored = err.count(f"{evidence}: the evidence was not stored")
    assert not_stored > 0
    assert len(ids(evidence)) == 40 - not_stored
    assert set(later) < set(ids(evidence)) < {*asked, *later}
    for path in (evidence, spool):
        assert verify_command([str(path), "--verifier", server.url]) == 0


def test_an_application_that_is_killed(server: LocalServer, tmp_path: Path) -> None:
    """Its queue dies with it; the evidence, which is written before an answer is handed over, has every answer."""
    evidence, spool = tmp_path / "evidence.jsonl", tmp_path / "spool.jsonl"
    with application(server, KILLED, evidence, spool) as process:
        assert process.stdout is not None
        asked = json.loads(process.stdout.readline())
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert sorted(ids(evidence)) == sorted(asked)
    assert len(asked) == 16
    assert not spool.exists()
    assert verify_command([str(evidence), "--verifier", server.url]) == 0
