"""The API server's end of the side channel: asks workers for proofs without blocking the event loop."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import zmq

from toploc.errors import ProofUnavailable

from ..log import logger
from .addresses import worker_address
from .messages import (
    UNREADABLE,
    CountSlots,
    Discard,
    Examine,
    Examined,
    Finalize,
    Hello,
    Proofs,
    Refusal,
    Slots,
    Welcome,
    decode_reply,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence
    from typing import Self

    from .messages import Reply, Request

READABLE: Final = int(zmq.POLLIN)
"""As numbers, since pyzmq's enumerations cost more than what they name."""
AT_ONCE: Final = int(zmq.NOBLOCK)
AT_ONCE_WITH_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

_background: set[asyncio.Task[None]] = set()


class Question(NamedTuple):
    """A request to one worker that is under way."""

    sequence: bytes
    reply: asyncio.Future[Reply]


class WorkerChannel:
    """Requests and replies to one worker, matched by sequence number.

    The socket is a plain one, read when its descriptor says so: `zmq.asyncio` costs the event loop several times more
    a message, and the end of every answer pays for two.
    """

    def __init__(self, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket: zmq.SyncSocket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(address)
        self._sequence = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[Reply]] = {}
        self._loop.add_reader(self._socket, self.receive)

    async def ask(self, request: Request, timeout: float) -> Reply:
        """Raises TimeoutError if the worker does not answer within `timeout` seconds."""
        question = self.post(request)
        try:
            async with asyncio.timeout(timeout):
                return await question.reply
        finally:
            self.forget(question)

    def post(self, request: Request) -> Question:
        """Sends a request now; its reply is to be waited for, and the question then to be forgotten."""
        question = Question(next(self._sequence).to_bytes(8), self._loop.create_future())
        try:
            # Whatever takes the first frame takes the second (zmq_msg_send(3)); `send_multipart` costs twice as much.
            message = encode(request)
            self._socket.send(question.sequence, AT_ONCE_WITH_MORE)
            self._socket.send(message, AT_ONCE)
        except zmq.Again:
            # A thousand messages that the worker has not taken.
            question.reply.set_exception(TimeoutError())
            # Nobody need look at it.
            question.reply.exception()
        self._waiting[question.sequence] = question.reply
        # The descriptor tells of a change once, and sending may have used that up (zmq_getsockopt(3), ZMQ_FD).
        if self._has_reply():
            self._loop.call_soon(self.receive)
        return question

    def forget(self, question: Question) -> None:
        """Takes no more interest in a reply."""
        del self._waiting[question.sequence]

    def receive(self) -> None:
        """Takes the replies that are there."""
        while not self._socket.closed and self._has_reply():
            frames = self._socket.recv_multipart(AT_ONCE)
            try:
                sequence, message = frames
                reply = decode_reply(message)
            except UNREADABLE:
                logger.exception("toploc: side channel: reply does not parse")
                continue
            waiting = self._waiting.get(sequence)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    def _has_reply(self) -> bool:
        """Asking is cheaper than an exception."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & READABLE)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()


class Asked:
    """A request to all workers that is under way."""

    def __init__(self, workers: Sequence[WorkerChannel], request: Request) -> None:
        self._posted = [(worker, worker.post(request)) for worker in workers]

    def only(self) -> Reply | None:
        """The reply of the only worker, if it is there already."""
        if len(self._posted) != 1:
            return None
        [(worker, question)] = self._posted
        if not question.reply.done():
            worker.receive()
        reply = question.reply
        return reply.result() if reply.done() and reply.exception() is None else None

    def replies(self) -> Iterator[Awaitable[Reply]]:
        """In the order of arrival. Those that have arrived do not suspend who awaits them."""
        for worker, _ in self._posted:
            worker.receive()
        replies = [question.reply for _, question in self._posted]
        there = [reply for reply in replies if reply.done()]
        waiting = [reply for reply in replies if not reply.done()]
        # One needs no queue.
        return chain(there, asyncio.as_completed(waiting) if len(waiting) > 1 else waiting)

    def forget(self) -> None:
        """Takes no more interest in the replies."""
        for worker, question in self._posted:
            worker.forget(question)
        self._posted.clear()


class Channel:
    """All workers of a server, one per data-parallel engine.

    Which engine runs a request is decided below `generate` and not visible there, so requests about a capture go to
    all; the one that has it answers.
    """

    def __init__(self, workers: Sequence[WorkerChannel], timeout: float, *, first: int = 0) -> None:
        self._workers = workers
        self._timeout = timeout
        self._first = first

    @classmethod
    def connect(cls, directory: str, engines: int, timeout: float, *, first: int = 0) -> Self:
        """Engines number `first` to `first + engines - 1`."""
        addresses = [worker_address(directory, engine) for engine in range(first, first + engines)]
        return cls([WorkerChannel(address) for address in addresses], timeout, first=first)

    async def hello(self, timeout: float) -> list[Welcome]:
        """Every worker's description of itself. Raises TimeoutError if one does not answer."""
        replies = await asyncio.gather(*(worker.ask(Hello(), timeout) for worker in self._workers))
        return [reply for reply in replies if isinstance(reply, Welcome)]

    def ask_for_proofs(self, nonce: str, child: int, inputs: Sequence[int]) -> Asked:
        """Begins `finalize`, for `proofs` to end or `forget` to give up."""
        return Asked(self._workers, Finalize(nonce, child, list(inputs)))

    async def proofs(self, asked: Asked) -> Proofs:
        """Proofs of one choice.

        Raises:
            ProofUnavailable: with the worker's reason, or `channel_timeout`.
        """
        # Asked for early it is there, and needs no timer.
        reply = asked.only()
        if isinstance(reply, Proofs):
            asked.forget()
            return reply
        reply = await self._of_holder(asked, self._timeout)
        if not isinstance(reply, Proofs):
            raise ProofUnavailable("channel_timeout", f"the worker did not answer within {self._timeout:g} s")
        return reply

    async def finalize(self, nonce: str, child: int, inputs: Sequence[int]) -> Proofs:
        """`proofs` from the beginning."""
        return await self.proofs(self.ask_for_proofs(nonce, child, inputs))

    async def examine(self, request: Examine, timeout: float) -> Examined:
        """What a prefill shows. Raises ProofUnavailable with the worker's reason, or `channel_timeout`."""
        reply = await self._of_holder(Asked(self._workers, request), timeout)
        if not isinstance(reply, Examined):
            raise ProofUnavailable("channel_timeout", f"the worker did not answer within {timeout:g} s")
        return reply

    async def _of_holder(self, asked: Asked, timeout: float) -> Reply | None:
        """The reply of the worker that has the capture, None if one is silent; ProofUnavailable if it refuses."""
        silent = False
        refusal = ProofUnavailable("capture_unknown", "no hidden states were captured for this answer")
        try:
            async with asyncio.timeout(timeout):
                for arriving in asked.replies():
                    try:
                        reply = await arriving
                    except TimeoutError:
                        # It was not even sent.
                        silent = True
                        continue
                    match reply:
                        case Proofs() | Examined():
                            return reply
                        # Engines that never saw the request say so; the one that did knows better.
                        case Refusal("capture_unknown"):
                            pass
                        case Refusal(code, message):
                            refusal = ProofUnavailable(code, message)
                        case _:
                            silent = True
        except TimeoutError:
            silent = True
        finally:
            asked.forget()
        if silent and refusal.code == "capture_unknown":
            return None
        raise refusal

    async def discard(self, nonce: str, children: Sequence[int]) -> None:
        """Tells the workers that nobody will ask; a worker that is gone has nothing to forget."""
        request = Discard(nonce, list(children))
        with suppress(TimeoutError):
            await asyncio.gather(*(worker.ask(request, self._timeout) for worker in self._workers))

    async def slots(self) -> dict[int, Slots]:
        """Slots of each engine's worker, by the engine's number. Raises TimeoutError if one does not answer."""
        replies = await asyncio.gather(*(worker.ask(CountSlots(), self._timeout) for worker in self._workers))
        return {engine: reply for engine, reply in enumerate(replies, self._first) if isinstance(reply, Slots)}

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def in_background(coroutine: Any) -> None:
    # The event loop keeps only weak references to tasks.
    task = asyncio.create_task(coroutine)
    _background.add(task)
    task.add_done_callback(_background.discard)
