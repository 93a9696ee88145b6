"""What breaks while requests run: what clients see, that nothing is lost but what broke, and that nothing hangs.

The tests of one server are in the order in which they harm it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import psutil
import pytest
from collector import Collector

from models.corpus import exchange
from toploc.receipts.receipt import verify_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs
    from toploc.receipts.keys import PublicKey

CHAT = "/v1/chat/completions"
SEQUENCES = 8
# See test_topologies.py; and connections that outlive a pause of their client.
# A process that should have ended and has not says where it is, in the server's log.
ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",
    "PYTHONFAULTHANDLER": "1",
}
# Of a segment, and of the socket's buffers: what a stalled stream leaves in the kernel is less than its answer.
SEGMENT, BUFFER = 536, 4096


class Outcome(NamedTuple):
    """Of one request: what it was answered, `error` events included, or None where the connection broke."""

    proven: bool
    status: int | None
    error: str | None


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("receipts") / "receipts.db"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


class Clock:
    """The wall clock of processes that start with its `environment`; the monotonic one is left alone, as by NTP."""

    def __init__(self, path: Path) -> None:
        library = find_spec("libfaketime")
        assert library is not None
        assert library.origin is not None
        self._path = path
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(Path(library.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, seconds: int) -> None:
        """To so many seconds from the true time, within a second."""
        written = self._path.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.replace(self._path)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module")
def pair(
    start: Callable[..., LocalServer],
    signing: tuple[Path, PublicKey],
    receipts: Path,
    collector: Collector,
    clock: Clock,
) -> Iterator[LocalServer]:
    """Two front ends before one engine, with a file of receipts, few slots, traces, and a clock that jumps."""
    options = ["--toploc-signing-key", str(signing[0]), "--toploc-receipts", str(receipts), *collector.options]
    front_ends = ["--api-server-count", "2", "--max-num-seqs", str(SEQUENCES)]
    with start(*front_ends, *options, **ENVIRONMENT, **collector.environment, **clock.environment) as server:
        yield server


def messages(seed: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": exchange(Random(seed)).question}]


def processes(server: LocalServer, title: str) -> list[psutil.Process]:
    """Those of the server whose title begins so; vLLM gives them one."""
    children = psutil.Process(server.pid).children(recursive=True)
    return [child for child in children if " ".join(child.cmdline()).startswith(title)]


def labelled(api: Api, name: str, **labels: str) -> float:
    """A metric's value under these labels, 0 if it has none yet."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in api.http.get("/metrics").text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in wanted))


@contextmanager
def full_disk(server: LocalServer, path: Path) -> Iterator[None]:
    """No file of the front ends grows beyond the size of this one: what they write fails, as on a full disk."""
    fronts = processes(server, "VLLM::APIServer")
    assert len(fronts) == 2
    unlimited = {front: front.rlimit(resource.RLIMIT_FSIZE) for front in fronts}
    for front, (_, hard) in unlimited.items():
        front.rlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        yield
    finally:
        for front, limits in unlimited.items():
            front.rlimit(resource.RLIMIT_FSIZE, limits)


def test_it_says_what_it_proves(pair: LocalServer, signing: tuple[Path, PublicKey]) -> None:
    """Each front end, in one line."""

    def said() -> list[str]:
        return [line for line in pair.log().splitlines() if "toploc: proving toploc-mini with bfloat16 hidden" in line]

    # The server answers once one of them is up.
    assert eventually(lambda: len(said()) == 2)
    assert all(line.endswith(f"slots a worker, signed by {signing[1].key_id}") for line in said())


def test_full_disk(pair: LocalServer, api_of: type[Api], verified: Callable[..., ToplocProofs], receipts: Path) -> None:
    """Answers are delivered with proofs and receipts; what is not stored is counted, and storing begins again.

    Logs cannot be written either: they are in a file too.
    """

    def ask(seed: int) -> tuple[str, dict[str, Any]]:
        answer = api.chat(messages(seed), max_tokens=40, temperature=1)
        [choice] = verified(answer["toploc_proofs"], messages(seed)).choices
        assert choice.receipt is not None
        return answer["id"], choice.receipt.model_dump(mode="json", exclude_none=True)

    def stored(response_id: str) -> Any:
        return api.http.get(f"/v1/toploc/receipts/{response_id}").json().get("receipts", [])

    with api_of(pair.url) as api, ThreadPoolExecutor(8) as pool:
        before = list(pool.map(ask, range(8)))
        assert all(stored(response_id) == [receipt] for response_id, receipt in before)
        with full_disk(pair, receipts.with_name("receipts.db-wal")):
            during = list(pool.map(ask, range(8, 16)))
            assert [stored(response_id) for response_id, _ in during] == [[]] * 8
            assert labelled(api, "toploc:receipts_total", outcome="not_stored") == 8
            assert stored(before[0][0]) == [before[0][1]]
        after = list(pool.map(ask, range(16, 24)))
        assert all(stored(response_id) == [receipt] for response_id, receipt in [*before, *after])
        assert labelled(api, "toploc:receipts_total", outcome="not_stored") == 8


def test_traces(pair: LocalServer, api_of: type[Api], collector: Collector) -> None:
    """Here for its server. Spans stand below the client's, as vLLM's own, and name the response."""
    traces = [f"{number:032x}" for number in (1, 2)]
    request = {"model": "toploc-mini", "messages": messages(1), "max_tokens": 40, "ignore_eos": True}
    with api_of(pair.url) as api:

        def post(path: str, trace: str, body: dict[str, Any]) -> dict[str, Any]:
            headers = {"traceparent": f"00-{trace}-00000000000000ff-01"}
            return api.http.post(path, json=body, headers=headers).raise_for_status().json()

        response = post(CHAT, traces[0], request)
        report = post("/v1/toploc/verify", traces[1], {"request": request, "response": response})
    assert eventually(lambda: {"llm_request", "toploc_proofs"} <= collector.of_trace(traces[0]).keys())
    assert eventually(lambda: "toploc_verification" in collector.of_trace(traces[1]))
    spans = collector.of_trace(traces[0])
    proofs, [verification] = spans["toploc_proofs"], collector.of_trace(traces[1]).values()
    assert {span.parent for span in (*spans.values(), verification)} == {"00000000000000ff"}
    assert proofs.attributes == {
        "gen_ai.request.id": response["id"],
        "toploc.choice": 0,
        "toploc.tokens": 40,
        "toploc.proofs": 2,
        "toploc.outcome": "proven",
        "toploc.asked_early": 1,
    }
    assert spans["llm_request"].attributes["gen_ai.request.id"] == response["id"]
    assert report["verdict"] == verification.attributes["toploc.verdict"] == "accepted"
    assert verification.attributes["gen_ai.request.id"] == response["id"]
    assert all(0 < span.seconds < 60 for span in (proofs, verification))


@pytest.mark.slow
def test_the_clock_jumps(
    pair: LocalServer,
    api_of: type[Api],
    verified: Callable[..., ToplocProofs],
    signing: tuple[Path, PublicKey],
    collector: Collector,
    clock: Clock,
) -> None:
    """By a day, back, and before it, while answers are made: all are proven, signed with the clock's time, and traced
    with their true length; nothing times out."""
    trace = f"{7:032x}"
    with api_of(pair.url) as api, ThreadPoolExecutor(8) as pool:
        api.http.headers["traceparent"] = f"00-{trace}-00000000000000ff-01"

        def ask(seed: int) -> tuple[dict[str, Any], dict[str, Any], float]:
            request = {"messages": messages(seed), "max_tokens": 200, "ignore_eos": True}
            return request, api.chat(**request), time.time()

        for jump in (24 * 3600, 0, -2 * 3600, 0):
            across = [pool.submit(ask, seed) for seed in range(8)]
            clock.jump(jump)
            answers = [future.result() for future in across]
            assert eventually(lambda jump=jump: abs(api.chat(messages(0))["created"] - time.time() - jump) < 10)
            for request, answer, _ in answers:
                verified(answer["toploc_proofs"], request["messages"])
            request, answer, now = ask(99)
            [result] = verify_receipt({"model": "toploc-mini", **request}, answer, [signing[1]])
            assert result.reason is None
            assert abs(result.statement.issued_at - now - jump) < 10
        assert eventually(lambda: api.metric("toploc:slots_in_use") == 0)
    spans = [span for span in collector.spans if (span.trace, span.name) == (trace, "toploc_proofs")]
    assert len(spans) >= 4 * 9
    assert all(0 < span.seconds < 60 for span in spans)


class SlowReader:
    """A client that asks for a stream and does not read it until it is told to."""

    TOKENS = 300

    def __init__(self, server: LocalServer, seed: int) -> None:
        body = {
            "model": "toploc-mini",
            "messages": messages(seed),
            "stream": True,
            "n": 2,
            "max_tokens": self.TOKENS,
            "ignore_eos": True,
            "logprobs": True,
            "top_logprobs": 20,
        }
        data = json.dumps(body).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
        self.messages = messages(seed)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self._socket.settimeout(120)
        self._socket.connect(("127.0.0.1", server.port))
        self._socket.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)

    def read(self) -> list[dict[str, Any]]:
        """The fields of the whole stream."""
        with self._socket, self._socket.makefile("rb") as file:
            lines = file.read().split(b"\n")
        assert b"data: [DONE]" in {line.strip() for line in lines}
        events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
        return [event["toploc_proofs"] for event in events if "toploc_proofs" in event]


@pytest.mark.slow
def test_slow_readers(pair: LocalServer, api_of: type[Api], verified: Callable[..., ToplocProofs]) -> None:
    """As many as there are slots: they cost nobody's proofs, since those are asked for when the engine ends."""
    with api_of(pair.url) as api, ThreadPoolExecutor(32) as pool:
        slots, tokens = int(api.metric("toploc:slots")), api.metric("vllm:generation_tokens_total")
        readers = [SlowReader(pair, seed) for seed in range(slots // 2)]
        whole = tokens + slots * SlowReader.TOKENS
        assert eventually(lambda: api.metric("vllm:generation_tokens_total") == whole)
        # Nothing is left to generate, and all wait for their readers.
        assert eventually(lambda: api.metric("toploc:slots_in_use") == 0)
        assert eventually(lambda: "choices" in api.chat(messages(0), max_tokens=1)["toploc_proofs"])
        for seed in range(8):
            verified(api.chat(messages(seed), max_tokens=40)["toploc_proofs"], messages(seed))
        fields = list(pool.map(SlowReader.read, readers))
        for reader, found in zip(readers, fields, strict=True):
            assert len(found) == 2
            for field in found:
                verified(field, reader.messages)
        assert eventually(lambda: api.metric("toploc:slots_in_use") == 0)


def eventually(holds: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether it comes to hold within so many seconds."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return held


def ask_on(url: str, seed: int) -> list[Outcome]:
    """Requests one after the other until the server is gone; every other one is a stream."""
    outcomes: list[Outcome] = []
    with httpx.Client(base_url=url, timeout=60) as http:
        while not outcomes or outcomes[-1].proven:
            long = {"max_tokens": 800, "ignore_eos": True} if outcomes else {"max_tokens": 20}
            body = {"model": "toploc-mini", "messages": messages(seed), "stream": seed % 2 == 1, **long}
            try:
                response = http.post(CHAT, json=body)
            except (httpx.NetworkError, httpx.ProtocolError):
                outcomes.append(Outcome(False, None, None))
                break
            lines = [line.removeprefix("data: ") for line in response.text.split("\n")]
            documents = [json.loads(line) for line in lines if line.startswith("{")]
            error = next((document["error"]["message"] for document in documents if "error" in document), None)
            proven = any("choices" in document.get("toploc_proofs", {}) for document in documents)
            outcomes.append(Outcome(proven, response.status_code, error))
    return outcomes


class End(NamedTuple):
    """How a server ended.

    Attributes:
        outcomes: of each client's requests, the last the one that was running.
        left: processes that lived on, and what it had made on disk.
    """

    status: int
    outcomes: list[list[Outcome]]
    left: list[str]


def end(server: LocalServer, api_of: type[Api], harm: Callable[[], None]) -> End:
    """Has eight clients ask, does harm, and waits for everything to be over."""
    everything = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    [worker] = processes(server, "VLLM::Worker")
    [channel] = {
        Path(bound.laddr).parent for bound in worker.net_connections("unix") if bound.laddr.endswith("engine-0.sock")
    }
    with ThreadPoolExecutor(8) as pool:
        with api_of(server.url) as api:
            before = labelled(api, "toploc:answers_total", outcome="proven")
            asking = [pool.submit(ask_on, server.url, seed) for seed in range(8)]
            assert eventually(lambda: labelled(api, "toploc:answers_total", outcome="proven") >= before + 8)
            assert eventually(lambda: api.metric("toploc:slots_in_use") == 8)
        harm()
        outcomes = [future.result(120) for future in asking]
        status = server.wait(60)
    _, alive = psutil.wait_procs(everything, timeout=60)
    for process in alive:
        process.send_signal(signal.SIGABRT)
    if psutil.wait_procs(alive, timeout=10)[0]:
        print(server.log()[-8000:])
    return End(status, outcomes, [*(str(process) for process in alive), *([str(channel)] if channel.exists() else [])])


def kill(server: LocalServer, title: str) -> Callable[[], None]:
    victim = processes(server, title)[0]
    return victim.kill


def test_a_front_end_is_killed(pair: LocalServer, api_of: type[Api]) -> None:
    """vLLM ends the whole server, with a status that says so; the last test of this one."""
    ended = end(pair, api_of, kill(pair, "VLLM::APIServer_1"))
    assert ended.status != 0
    assert ended.left == []
    for outcomes in ended.outcomes:
        assert all(outcome.proven for outcome in outcomes[:-1])


@pytest.mark.parametrize("title", [pytest.param("VLLM::Worker", marks=pytest.mark.slow), "VLLM::EngineCore"])
def test_what_generates_is_killed(start: Callable[..., LocalServer], api_of: type[Api], title: str) -> None:
    """Every answer that was in progress ends in an error, none is cut off without a word, and vLLM ends the server."""
    with start(**ENVIRONMENT) as server:
        ended = end(server, api_of, kill(server, title))
    assert ended.left == []
    for outcomes in ended.outcomes:
        *before, last = outcomes
        assert before
        assert all(outcome.proven for outcome in before)
        assert last.error is not None
        assert "EngineCore" in last.error


def test_it_is_told_to_stop(start: Callable[..., LocalServer], api_of: type[Api]) -> None:
    """As vLLM alone: at once, with status 0, and an error or the connection's end for each answer in progress."""
    with start(**ENVIRONMENT) as server:
        ended = end(server, api_of, lambda: os.kill(server.pid, signal.SIGTERM))
    assert (ended.status, ended.left) == (0, [])
    assert not any(outcomes[-1].proven for outcomes in ended.outcomes)
    assert all(outcome.proven for outcomes in ended.outcomes for outcome in outcomes[:-1])


@pytest.mark.slow
def test_it_is_told_to_stop_and_has_time(start: Callable[..., LocalServer], api_of: type[Api]) -> None:
    """As vLLM alone: answers in progress are finished, and so are their proofs."""
    with start("--shutdown-timeout", "120", **ENVIRONMENT) as server:
        ended = end(server, api_of, lambda: os.kill(server.pid, signal.SIGTERM))
    assert (ended.status, ended.left) == (0, [])
    for outcomes in ended.outcomes:
        # A short one, that in progress and perhaps another, and one that came too late.
        *whole, late = outcomes
        assert len(whole) >= 2
        assert all(outcome.proven for outcome in whole)
        assert late.status is None or late.error is not None, late
