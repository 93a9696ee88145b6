"""The worker's end of the side channel: a thread that answers API servers from the recorder."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import zmq

from toploc.errors import ProofUnavailable

from .capture import Key
from .log import logger
from .messages import UNREADABLE, Discard, Done, Finalize, Hello, Proofs, Refusal, Welcome, decode_request, encode

if TYPE_CHECKING:
    from .messages import Reply, Request
    from .recorder import Recorder

HOUSEKEEPING_SECONDS = 1


class Service:
    """Binds `address` and serves until the process ends.

    Each request is three frames (client, sequence number, message); the reply repeats the first two. A message that
    does not parse is dropped: only this server's own processes can reach the socket, so it is a bug, not traffic.
    """

    def __init__(self, address: str, recorder: Recorder, welcome: Welcome, *, capture_ttl: float) -> None:
        self._address = address
        self._recorder = recorder
        self._welcome = welcome
        self._capture_ttl = capture_ttl

    def start(self) -> None:
        # A context of its own: vLLM's may be closed before, and a forked one must not be used.
        socket = zmq.Context().socket(zmq.ROUTER)
        socket.linger = 0
        socket.bind(self._address)
        threading.Thread(target=self._run, args=(socket,), name="toploc-service", daemon=True).start()

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        next_housekeeping = time.monotonic() + HOUSEKEEPING_SECONDS
        while True:
            # Also under constant traffic.
            if time.monotonic() >= next_housekeeping:
                next_housekeeping = time.monotonic() + HOUSEKEEPING_SECONDS
                expired = self._recorder.expire(self._capture_ttl)
                if expired:
                    logger.warning("toploc: dropped %d captures whose proofs nobody asked for", expired)
            if not socket.poll(HOUSEKEEPING_SECONDS * 1000):
                continue
            client, sequence, *message = socket.recv_multipart()
            try:
                request = decode_request(b"".join(message))
            except UNREADABLE:
                logger.exception("toploc: side channel: message does not parse")
                continue
            socket.send_multipart([client, sequence, encode(self._answer(request))])

    def _answer(self, request: Request) -> Reply:
        try:
            match request:
                case Hello():
                    return self._welcome
                case Finalize(nonce, child, inputs):
                    return Proofs(self._recorder.finalize(Key(nonce, child), inputs))
                case Discard(nonce, children):
                    for child in children:
                        self._recorder.discard(Key(nonce, child))
                    return Done()
        except ProofUnavailable as error:
            return Refusal(error.code, str(error))
        except Exception:
            # The thread must outlive any one answer.
            logger.exception("toploc: building proofs failed")
            return Refusal("internal_error", "building the proofs failed; the server's log has the details")
