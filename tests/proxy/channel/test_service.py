"""The worker's end of the side channel: the real thread, socket and recorder."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import stat
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.recorder import Recorder
from toploc_proxy.capture.step import Step
from toploc_proxy.channel import service as service_module
from toploc_proxy.channel.addresses import channel_directory, worker_address
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import (
    PROTOCOL,
    Discard,
    Done,
    Examine,
    Finalize,
    Hello,
    Proofs,
    Refusal,
    Welcome,
    decode_reply,
    encode,
)
from toploc_proxy.channel.service import Service
from toploc_proxy.channel.tag import EXTRA_ARG, Key, Tag
from toploc_proxy.examine.examiner import Examiner
from toploc_proxy.examine.prefills import Prefills

from toploc.errors import ProofUnavailable
from toploc.proofs.format import encode_points
from toploc.proofs.topk import top_k
from toploc.scheme import TOPK

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "service"
HIDDEN = 128
WELCOME = Welcome(PROTOCOL, "0", "v1", HIDDEN, "bfloat16", None, 64)
HANG = 20_000


class Served:
    """A recorder that answers on a socket, and an engine's part in one method."""

    def __init__(self, directory: str, *, capture_ttl: float = 3600) -> None:
        self.directory = directory
        self.recorder = Recorder(HostRing(64, 64, HIDDEN, torch.bfloat16, TOPK), SECRET)
        Service(worker_address(directory, 0), self.recorder, WELCOME, capture_ttl=capture_ttl).start()

    def generate(self, seed: int, num_tokens: int) -> tuple[Tag, list[int], list[bytes]]:
        """Captures an answer: its tag, the inputs to ask about, and the proofs to expect."""
        rng, tag = np.random.default_rng(seed), Tag.new()
        states = rng.integers(0, 2**16, (num_tokens, HIDDEN), dtype=np.uint16)
        ids = rng.integers(0, 9, num_tokens)
        self.recorder.register(tag.nonce, {EXTRA_ARG: tag.seal(SECRET)}, 1)
        self.recorder.record(
            Step(
                request_ids=[tag.nonce],
                first_positions=np.array([0]),
                starts=np.array([0, num_tokens]),
                hidden_states=torch.from_numpy(states.view(np.int16)).view(torch.bfloat16),
                positions=torch.arange(num_tokens),
                input_ids=torch.from_numpy(ids),
            )
        )
        chunks = [states[i : i + 32].ravel() for i in range(0, num_tokens, 32)]
        return tag, ids.tolist(), [encode_points(*top_k(chunk, TOPK)) for chunk in chunks]


class Client:
    """A plain socket that sends what it is told."""

    def __init__(self, served: Served) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(worker_address(served.directory, 0))

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))

    def receive(self) -> tuple[bytes, Any]:
        assert self.socket.poll(HANG), "the service is dead"
        sequence, message = self.socket.recv_multipart()
        return sequence, decode_reply(message)

    def ask(self, request: object) -> Any:
        self.send(b"s", encode(request))
        sequence, reply = self.receive()
        assert sequence == b"s"
        return reply

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with channel_directory() as directory:
        yield Served(directory)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    client = Client(served)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vllm.toploc")


def test_socket_lies_where_only_this_user_can_reach_it(served: Served) -> None:
    directory = Path(served.directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [path.name for path in directory.iterdir() if path.is_socket()] == ["engine-0.sock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_cannot_connect(sockets: str) -> None:
    Served(sockets)
    path = f"{sockets}/engine-0.sock"

    program = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""

    def connect() -> str:
        ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
        return ran.stderr.strip().rpartition("\n")[2]

    assert connect().startswith("PermissionError")
    # The directory alone keeps others out, whatever the umask leaves to the socket.
    Path(path).chmod(0o777)
    assert connect().startswith("PermissionError")
    Path(sockets).chmod(0o755)
    assert connect() == ""


def test_hello(client: Client) -> None:
    assert client.ask(Hello()) == WELCOME


@pytest.mark.parametrize("num_tokens", [1, 32, 100])
def test_finalize_once(served: Served, client: Client, num_tokens: int) -> None:
    tag, inputs, proofs = served.generate(num_tokens, num_tokens)
    assert client.ask(Finalize(tag.nonce, 0, inputs)) == Proofs(proofs)
    assert client.ask(Finalize(tag.nonce, 0, inputs)).code == "capture_unknown"


def test_discard(served: Served, client: Client) -> None:
    tag, inputs, _ = served.generate(1, 5)
    assert client.ask(Discard(tag.nonce, [3, 0, -1])) == Done()
    assert client.ask(Discard(tag.nonce, [])) == Done()
    assert client.ask(Finalize(tag.nonce, 0, inputs)).code == "capture_unknown"


@pytest.mark.parametrize(
    "request_",
    [
        Finalize("unknown", 0, [1]),
        Finalize("", -1, []),
        Finalize("é" * 1000, 2**62, [-(2**63), 2**63 - 1]),
    ],
)
def test_finalize_of_what_was_never_captured(client: Client, request_: Finalize) -> None:
    assert client.ask(request_).code == "capture_unknown"


@pytest.mark.parametrize("inputs", [[], [-1], [2**63 - 1], [2**64 - 1]])
def test_unlikely_inputs(served: Served, client: Client, inputs: list[int]) -> None:
    tag, _, _ = served.generate(2, 3)
    reply = client.ask(Finalize(tag.nonce, 0, inputs))
    assert reply == Proofs([]) if not inputs else isinstance(reply, Refusal)
    assert Key(tag.nonce, 0) not in served.recorder._captures


def test_a_long_question(served: Served, client: Client) -> None:
    tag, inputs, proofs = served.generate(3, 20_000)
    assert client.ask(Finalize(tag.nonce, 0, inputs)) == Proofs(proofs)
    tag, inputs, _ = served.generate(3, 40)
    assert client.ask(Finalize(tag.nonce, 0, inputs * 5_000)).code == "rows_missing"


MESSAGES = st.sampled_from(
    [
        b"",
        b"\xc1",
        b"\x81\xa4type\xa2\xff\xfe",
        b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 100_000 + b"\xc0",
        encode({"type": "finalize", "nonce": 1, "child": 0, "inputs": []}),
        encode({"type": "finalize", "nonce": "n", "child": 0, "inputs": [None]}),
        encode({"type": "finalize", "nonce": "n", "child": 2**64 - 1, "inputs": [0.5]}),
        encode({"type": "unheard-of"}),
        encode({"type": "welcome"}),
        encode([1, 2]),
        encode(Hello()) + b"x",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.binary(max_size=40) | MESSAGES, min_size=1, max_size=4), max_size=4))
def test_no_bytes_end_the_service(client: Client, garbage: list[list[bytes]]) -> None:
    for frames in garbage:
        client.send(*frames)
    client.send(b"after", encode(Hello()))
    # Garbage may happen to be a message, and is answered then.
    while (answer := client.receive())[0] != b"after":
        pass
    assert answer == (b"after", WELCOME)


def test_a_verification_that_a_worker_cannot_examine(client: Client) -> None:
    """This one has no examiner: the thread answers on."""
    assert client.ask(Examine("n", [1], [2], None, [])).code == "capture_unknown"
    assert client.ask(Hello()) == WELCOME


def test_message_of_a_later_version_with_another_field(client: Client) -> None:
    assert client.ask({"type": "hello", "since": 2}) == WELCOME


def test_error_in_the_recorder_does_not_end_the_service(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, inputs, _ = served.generate(4, 40)

    def broken(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("toploc_proxy.capture.chunks.encode_chunks", broken)
        reply = client.ask(Finalize(tag.nonce, 0, inputs))
    assert reply.code == "internal_error"
    assert "MemoryError" not in reply.message
    assert client.ask(Hello()) == WELCOME


def test_several_clients_at_once(served: Served) -> None:
    """Two API servers, each with many questions in flight, get their own answers."""
    answers = [served.generate(seed, 1 + 7 * seed % 90) for seed in range(24)]

    async def ask(mine: list[tuple[Tag, list[int], list[bytes]]]) -> None:
        channel = Channel.connect(served.directory, 1, HANG)
        try:
            got = await asyncio.gather(*(channel.finalize(tag.nonce, 0, inputs) for tag, inputs, _ in mine))
            assert got == [Proofs(proofs) for *_, proofs in mine]
            with pytest.raises(ProofUnavailable, match="captured"):
                await channel.finalize(mine[0][0].nonce, 0, mine[0][1])
        finally:
            channel.close()

    failures: list[BaseException] = []

    def run(mine: list[tuple[Tag, list[int], list[bytes]]]) -> None:
        try:
            asyncio.run(ask(mine))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(answers[i::2],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_abandoned_captures_expire_even_under_constant_traffic(sockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HOUSEKEEPING_SECONDS", 0.05)
    served = Served(sockets, capture_ttl=1e-9)
    tag, inputs, _ = served.generate(5, 3)
    running, running_inputs, proofs = served.generate(6, 3)
    served.recorder.finished([tag.nonce])
    client = Client(served)
    deadline = time.monotonic() + HANG / 1000
    while served.recorder.slots_in_use > 1 and time.monotonic() < deadline:
        client.ask(Hello())
    assert client.ask(Finalize(tag.nonce, 0, inputs)).code == "capture_unknown"
    assert client.ask(Finalize(running.nonce, 0, running_inputs)) == Proofs(proofs)
    client.close()


def test_messages_are_what_the_other_end_expects() -> None:
    """A worker of another release refuses what it cannot read; so the format is not to change unnoticed."""
    assert msgspec.msgpack.decode(encode(Finalize("n", 1, [2]))) == {
        "type": "finalize",
        "nonce": "n",
        "child": 1,
        "inputs": [2],
    }
    assert msgspec.msgpack.decode(encode(Discard("n", [1]))) == {"type": "discard", "nonce": "n", "children": [1]}
    assert msgspec.msgpack.decode(encode(Proofs([b"\x00"], [(0, 0, 1)]))) == {
        "type": "proofs",
        "proofs": [b"\x00"],
        "weights": [[0, 0, 1]],
    }


def test_it_ends_with_an_engine_that_ends_before_its_process() -> None:
    """Its thread and the examiner's, and with them all that they hold."""
    with channel_directory() as directory:
        recorder, examiner = Recorder(HostRing(8, 64, HIDDEN, torch.bfloat16, TOPK), SECRET), examiner_of_none()
        held = weakref.ref(recorder)
        service = Service(worker_address(directory, 0), recorder, WELCOME, capture_ttl=9, examiner=examiner)
        service.start()
        before = threading.active_count()
        service.stop()
        deadline = time.monotonic() + 30
        while threading.active_count() > before - 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == before - 2
        del recorder, service, examiner
        gc.collect()
        assert held() is None


def examiner_of_none() -> Examiner:
    examiner = Examiner(Prefills(SECRET), None, torch.device("cpu"))
    examiner.start()
    return examiner
