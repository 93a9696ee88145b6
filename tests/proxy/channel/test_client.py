"""The API server's end, against a peer whose every frame the test writes; `test_service.py` has the real one."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from scripted import PROOF, reply, worker
from toploc_proxy.channel.addresses import worker_address
from toploc_proxy.channel.client import Channel, WorkerChannel
from toploc_proxy.channel.messages import (
    Discard,
    Done,
    Finalize,
    Hello,
    Proofs,
    Refusal,
    Slots,
    Welcome,
    decode_request,
    encode,
)

from toploc.errors import ProofUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

WELCOME = Welcome(1, "0", "v1", 256, "bfloat16", None, 8)
SOON, LONG = 0.05, 20.0


def run(directory: str, timeout: float, use: Callable[[Channel], Any], engines: int = 1) -> Any:
    async def main() -> Any:
        channel = Channel.connect(directory, engines, timeout)
        try:
            return await use(channel)
        finally:
            channel.close()
            # The cancellation of what is still asked takes a turn of the loop.
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())


def code_of(directory: str, timeout: float, engines: int = 1) -> str:
    with pytest.raises(ProofUnavailable) as caught:
        run(directory, timeout, lambda channel: channel.finalize("n", 0, [1]), engines)
    return caught.value.code


def test_finalize(sockets: str) -> None:
    def answer(request: object) -> list[list[bytes]]:
        assert request == Finalize("n", 3, [1, 2])
        return reply(Proofs([PROOF]))

    with worker(sockets, answer):
        assert run(sockets, LONG, lambda channel: channel.finalize("n", 3, (1, 2))) == Proofs([PROOF])


def test_hello_and_discard(sockets: str) -> None:
    requests = []

    def answer(request: object) -> list[list[bytes]]:
        requests.append(request)
        return reply(WELCOME if request == Hello() else Done())

    async def use(channel: Channel) -> list[Welcome]:
        await channel.discard("n", [0, 2])
        return await channel.hello(LONG)

    with worker(sockets, answer):
        assert run(sockets, LONG, use) == [WELCOME]
    assert requests == [Discard("n", [0, 2]), Hello()]


def test_refusal_keeps_its_code(sockets: str) -> None:
    with worker(sockets, lambda _: reply(Refusal("rows_missing", "why"))):
        assert code_of(sockets, LONG) == "rows_missing"


def test_silent_worker(sockets: str) -> None:
    with worker(sockets, lambda _: []):
        assert code_of(sockets, SOON) == "channel_timeout"
        with pytest.raises(TimeoutError):
            run(sockets, LONG, lambda channel: channel.hello(SOON))
        run(sockets, SOON, lambda channel: channel.discard("n", [0]))


def test_no_worker(sockets: str) -> None:
    assert code_of(sockets, SOON) == "channel_timeout"


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"?"],
        [b"?", encode(Proofs([PROOF])), b""],
        [b"", b""],
        [b"?", b""],
        [b"?", b"\xc1"],
        [b"?", encode(Hello())],
        [b"?", encode({"type": "proofs", "proofs": "p"})],
        [b"?", b"\x81\xa4type\xa2\xff\xfe"],
        [b"?", b"\x91" * 100_000],
        [b"?", encode({"type": "unheard-of"})],
        [b"of nobody", encode(Proofs([b"wrong"]))],
    ],
)
def test_garbage_does_not_end_the_channel(sockets: str, frames: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    """The right reply that follows garbage still arrives."""
    caplog.set_level(logging.CRITICAL, "vllm.toploc")
    with worker(sockets, lambda _: [frames, *reply(Proofs([PROOF]))]):
        assert run(sockets, LONG, lambda channel: channel.finalize("n", 0, [1])) == Proofs([PROOF])


@pytest.mark.parametrize("message", [Done(), WELCOME])
def test_reply_of_another_kind_proves_nothing(sockets: str, message: object) -> None:
    with worker(sockets, lambda _: reply(message)):
        assert code_of(sockets, LONG) == "channel_timeout"


def test_replies_are_matched_in_any_order(sockets: str) -> None:
    """All requests first, then their replies backwards, twice each."""
    held: list[Finalize] = []

    async def use(channel: Channel) -> list[Proofs]:
        return await asyncio.gather(*(channel.finalize("n", child, []) for child in range(20)))

    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(worker_address(sockets, 0))

    def serve() -> None:
        messages = [socket.recv_multipart() for _ in range(20)]
        for client, sequence, message in reversed(messages):
            request = decode_request(message)
            held.append(request)
            for _ in range(2):
                socket.send_multipart([client, sequence, encode(Proofs([bytes([request.child])]))])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert run(sockets, LONG, use) == [Proofs([bytes([child])]) for child in range(20)]
    finally:
        thread.join()
        socket.close(linger=0)
        context.term()
    assert [request.child for request in held] == list(reversed(range(20)))


def test_late_reply_is_not_taken_for_the_next_requests(sockets: str) -> None:
    """The first request is answered when the second comes."""

    def answer(request: Any) -> list[list[bytes]]:
        if request.child == 0:
            return []
        return [[(0).to_bytes(8), encode(Proofs([b"late"]))], *reply(Proofs([PROOF]))]

    async def use(channel: Channel) -> Proofs:
        with pytest.raises(TimeoutError):
            await channel._workers[0].ask(Finalize("n", 0, []), SOON)
        return await channel.finalize("n", 1, [])

    with worker(sockets, answer):
        assert run(sockets, LONG, use) == Proofs([PROOF])


def test_the_engine_that_has_the_capture_answers(sockets: str) -> None:
    unknown = reply(Refusal("capture_unknown", ""))
    with worker(sockets, lambda _: unknown), worker(sockets, lambda _: reply(Proofs([PROOF])), engine=1):
        assert run(sockets, LONG, lambda channel: channel.finalize("n", 0, [1]), engines=2) == Proofs([PROOF])


def test_the_reason_of_the_engine_that_has_the_capture_counts(sockets: str) -> None:
    unknown = reply(Refusal("capture_unknown", ""))
    with worker(sockets, lambda _: unknown), worker(sockets, lambda _: reply(Refusal("rows_missing", "")), engine=1):
        assert code_of(sockets, LONG, engines=2) == "rows_missing"


def test_all_engines_say_unknown(sockets: str) -> None:
    unknown = reply(Refusal("capture_unknown", ""))
    with worker(sockets, lambda _: unknown), worker(sockets, lambda _: unknown, engine=1):
        assert code_of(sockets, LONG, engines=2) == "capture_unknown"


def test_silent_engine_may_be_the_one_that_knows(sockets: str) -> None:
    with worker(sockets, lambda _: reply(Refusal("capture_unknown", ""))), worker(sockets, lambda _: [], engine=1):
        assert code_of(sockets, SOON, engines=2) == "channel_timeout"


def test_worker_that_comes_late_is_found(sockets: str) -> None:
    """Sockets connect before their worker has bound its end."""

    async def use(channel: Channel) -> list[Welcome]:
        asking = asyncio.create_task(channel.hello(LONG))
        await asyncio.sleep(SOON)
        with worker(sockets, lambda _: reply(WELCOME)):
            return await asking

    assert run(sockets, LONG, use) == [WELCOME]


def test_cancelled_request_leaves_nothing(sockets: str) -> None:
    async def main() -> None:
        channel = WorkerChannel(worker_address(sockets, 0))
        asking = asyncio.create_task(channel.ask(Hello(), LONG))
        await asyncio.sleep(SOON)
        assert len(channel._waiting) == 1
        asking.cancel()
        await asyncio.wait([asking])
        assert channel._waiting == {}
        channel.close()

    asyncio.run(main())


@pytest.mark.timeout(30)
def test_a_dead_engine_does_not_hold_up_the_others_proofs(sockets: str) -> None:
    with worker(sockets, lambda _: reply(Proofs([PROOF]))):
        assert run(sockets, 3600, lambda channel: channel.finalize("n", 0, [1]), engines=2) == Proofs([PROOF])


def test_slots(sockets: str) -> None:
    with worker(sockets, lambda _: reply(Slots(288, 3))):
        assert run(sockets, LONG, lambda channel: channel.slots()) == {0: Slots(288, 3)}
