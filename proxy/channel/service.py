"""The worker's end of the side channel: a thread that answers API servers from what was captured."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

import zmq

from toploc.errors import ProofUnavailable

from ..log import logger
from .messages import (
    UNREADABLE,
    CountSlots,
    Discard,
    Done,
    Examine,
    Finalize,
    Hello,
    Proofs,
    Refusal,
    Slots,
    Welcome,
    decode_request,
    encode,
)
from .tag import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .messages import Reply, Request

HOUSEKEEPING_SECONDS: Final = 1
"""Each time this thread wakes, the engine's may have to wait for the interpreter."""

EXAMINED: Final = "inproc://examined"
"""Where the examiner's replies come from its thread to this one."""

ROUND: Final = 1024
"""Answers proven together: more than end in one step of any batch."""


Made = tuple[list[bytes], list[tuple[int, int, int]]]
"""The fields of a `Proofs`."""


class Captures(Protocol):
    """Hidden states of answers, by `Key` (`capture.recorder.Recorder`)."""

    @property
    def slots_in_use(self) -> int:
        """Captures held now."""

    @property
    def weights_version(self) -> int:
        """How often the model's weights were replaced."""

    def encode(self) -> None:
        """Encodes the chunks that are ready."""

    def finalize_all(self, wanted: Sequence[tuple[Key, Sequence[int]]]) -> Sequence[Made | ProofUnavailable]:
        """Proofs of the tokens generated from these inputs, or why there are none; releases the captures."""

    def discard(self, key: Key) -> None:
        """Forgets a capture."""

    def expire(self, ttl: float) -> int:
        """Forgets what nobody asked about for `ttl` seconds; returns how many."""


class Examinations(Protocol):
    """Prefills that verify answers, by nonce (`examine.examiner.Examiner`)."""

    def submit(self, request: Examine, reply: Callable[[Reply], object]) -> None:
        """Calls `reply` once, from another thread."""

    def discard(self, nonce: str) -> None:
        """Forgets a prefill."""

    def expire(self, ttl: float) -> int:
        """Forgets what nobody asked about for `ttl` seconds; returns how many."""

    def stop(self) -> None:
        """Ends the thread, once it has done what it was asked."""


class Service:
    """Serves on a ROUTER socket that is bound to `address`, until `stop` or the end of the process; over TCP
    on a DEALER socket that is connected to the relay, which puts the client's frame before a request itself.

    Each request is three frames (client, sequence number, message); the reply repeats the first two. A message that
    does not parse is dropped: only this server's own processes can reach the socket, so it is a bug, not traffic.
    """

    def __init__(
        self,
        address: str,
        captures: Captures,
        welcome: Welcome,
        *,
        capture_ttl: float,
        examiner: Examinations | None = None,
        connect: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> None:
        self._address = address
        self._connect = connect
        self._captures = captures
        self._welcome = welcome
        self._capture_ttl = capture_ttl
        self._examiner = examiner
        self._stopped = threading.Event()

    def start(self) -> None:
        # A context of its own: vLLM's may be closed before, and a forked one must not be used.
        context = zmq.Context()
        socket = context.socket(zmq.ROUTER if self._connect is None else zmq.DEALER)
        socket.linger = 0
        if self._connect is None:
            socket.bind(self._address)
        else:
            self._connect(socket)
        # A socket is one thread's: the examiner's replies come through a pair of their own.
        examined = context.socket(zmq.PULL)
        examined.bind(EXAMINED)
        self._examined = context.socket(zmq.PUSH)
        self._examined.connect(EXAMINED)
        arguments = context, socket, examined
        threading.Thread(target=self._run_until_stopped, args=arguments, name="toploc-service", daemon=True).start()

    def stop(self) -> None:
        """Ends its thread and the examiner's, within about a second."""
        self._stopped.set()

    def _run_until_stopped(
        self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], examined: zmq.Socket[bytes]
    ) -> None:
        self._run(socket, examined)
        if self._examiner is not None:
            self._examiner.stop()
        for each in (socket, examined, self._examined):
            each.close()
        context.term()

    def _run(self, socket: zmq.Socket[bytes], examined: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(examined, zmq.POLLIN)
        next_housekeeping = time.monotonic() + HOUSEKEEPING_SECONDS
        while not self._stopped.is_set():
            # Also under constant traffic.
            if time.monotonic() >= next_housekeeping:
                next_housekeeping = time.monotonic() + HOUSEKEEPING_SECONDS
                self._encode()
                expired = self._captures.expire(self._capture_ttl)
                if self._examiner is not None:
                    expired += self._examiner.expire(self._capture_ttl)
                if expired:
                    logger.warning("toploc: dropped %d captures whose proofs nobody asked for", expired)
            ready = dict(poller.poll(HOUSEKEEPING_SECONDS * 1000))
            if socket in ready:
                self._serve(socket)
            if examined in ready:
                while examined.poll(0):
                    socket.send_multipart(examined.recv_multipart())

    def _encode(self) -> None:
        try:
            self._captures.encode()
        except Exception:
            # The thread must outlive any one answer; this one's proofs are refused when they are asked for.
            logger.exception("toploc: encoding chunks failed")

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        """Answers what has come in. Answers that end in the same step are proven together."""
        received = [(envelope, message) for envelope, message in _receive(socket) if message is not None]
        finalize = [message for _, message in received if isinstance(message, Finalize)]
        proofs = iter(self._finalize(finalize))
        for envelope, message in received:
            if isinstance(message, Examine):
                self._examine(envelope, message)
                continue
            reply = next(proofs) if isinstance(message, Finalize) else self._answer(message)
            socket.send_multipart([*envelope, encode(reply)])

    def _finalize(self, requests: list[Finalize]) -> list[Reply]:
        try:
            outcomes = self._captures.finalize_all([(Key(r.nonce, r.child), r.inputs) for r in requests])
        except Exception:
            # The thread must outlive any one answer.
            logger.exception("toploc: building proofs failed")
            message = "building the proofs failed; the server's log has the details"
            return [Refusal("internal_error", message) for _ in requests]
        return [
            Refusal(outcome.code, str(outcome)) if isinstance(outcome, ProofUnavailable) else Proofs(*outcome)
            for outcome in outcomes
        ]

    def _examine(self, envelope: list[bytes], request: Examine) -> None:
        def reply(message: Reply) -> None:
            self._examined.send_multipart([*envelope, encode(message)])

        if self._examiner is None:
            reply(Refusal("capture_unknown", "this worker captures no prefills"))
        else:
            self._examiner.submit(request, reply)

    def _answer(self, request: Hello | Discard | CountSlots) -> Reply:
        match request:
            case Hello():
                return self._welcome
            case Discard(nonce, children):
                for child in children:
                    self._captures.discard(Key(nonce, child))
                if self._examiner is not None:
                    self._examiner.discard(nonce)
                return Done()
            case CountSlots():
                return Slots(self._welcome.slots, self._captures.slots_in_use, self._captures.weights_version)


def _receive(socket: zmq.Socket[bytes]) -> Iterator[tuple[list[bytes], Request | None]]:
    """Messages that are waiting, each with the frames its reply begins with; None for one that does not parse."""
    for _ in range(ROUND):
        if not socket.poll(0):
            return
        client, sequence, *message = socket.recv_multipart()
        try:
            yield [client, sequence], decode_request(b"".join(message))
        except UNREADABLE:
            logger.exception("toploc: side channel: message does not parse")
            yield [], None
