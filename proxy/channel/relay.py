"""The side channel over TCP, for workers on other machines: they connect to a relay in the head's `toploc serve`.

The API servers of the head reach the relay through the same local sockets as they would the workers. Everything on
TCP is encrypted and authenticated both ways by ZeroMQ's CURVE (https://rfc.zeromq.org/spec/26/), with keys that follow
from the server's secret: who does not have it is refused before a message of theirs is read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import zmq
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from toploc.errors import UnsupportedEngine

from ..log import logger
from .addresses import identity, worker_address

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN: Final = "toploc"
"""Names the callback that decides who may connect."""

MIN_SECRET: Final = 32
"""Characters. Against guessing the secret from a recorded handshake."""

MAX_MESSAGE_BYTES: Final = 64 * 2**20
"""Against a peer that claims a frame as long as memory: a million tokens to prove take 5 MB."""

HEARTBEAT_MILLISECONDS: Final = 5_000

HEARTBEAT_TIMEOUT_MILLISECONDS: Final = 30_000
"""A connection that a network lost without a word is given up after this, so that the worker can come back."""


def read_secret(path: str) -> str:
    """The secret that all machines of a server share.

    Raises:
        UnsupportedEngine: the file cannot be read, or its secret is short.
    """
    try:
        secret = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnsupportedEngine(f"toploc: --toploc-channel-secret {path}: {error}") from None
    if len(secret) < MIN_SECRET:
        raise UnsupportedEngine(
            f"toploc: --toploc-channel-secret {path}: fewer than {MIN_SECRET} characters; "
            "make one with `openssl rand -hex 32`"
        )
    return secret


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Keys of one side, in Z85."""

    public: bytes
    private: bytes

    @classmethod
    def derive(cls, secret: str, side: str) -> Self:
        """HKDF-SHA256 (RFC 5869) of the secret, as an X25519 key."""
        kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"toploc side channel, {side}".encode())
        private = z85.encode(kdf.derive(secret.encode()))
        return cls(zmq.curve_public(private), private)


def connect_worker(socket: zmq.Socket[bytes], address: str, secret: str, engine: int) -> None:
    """Connects a worker's DEALER socket to the relay, now or when that is up, and again whenever it was lost."""
    keys, head = KeyPair.derive(secret, "worker"), KeyPair.derive(secret, "head")
    socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = keys.public, keys.private, head.public
    socket.routing_id = identity(engine)
    _configure(socket, address)
    socket.connect(address)
    # Requests wait in the relay until this.
    socket.send(b"")


def _configure(socket: zmq.Socket[bytes], address: str) -> None:
    socket.linger = 0
    socket.ipv6 = ":" in (urlsplit(address).hostname or "")
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.heartbeat_ivl = HEARTBEAT_MILLISECONDS
    socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MILLISECONDS


class WorkerCredentials:
    """The only peers that may connect (pyzmq's callback for ZAP, https://rfc.zeromq.org/spec/27/)."""

    def __init__(self, secret: str) -> None:
        self._key = KeyPair.derive(secret, "worker").public

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self._key


class Relay:
    """Passes messages between the local sockets in `directory`, one for each engine, and the workers on `address`.

    Of two workers that call themselves the same, the second is turned away as long as the first is connected.
    """

    def __init__(self, directory: str, engines: Sequence[int], address: str, secret: str) -> None:
        """Raises UnsupportedEngine if `address` is not this machine's, or taken."""
        self._context = zmq.Context()
        self._workers: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._fronts: dict[bytes, zmq.Socket[bytes]] = {}
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, WorkerCredentials(secret))
        self._workers.curve_server = True
        self._workers.curve_secretkey = KeyPair.derive(secret, "head").private
        self._workers.zap_domain = DOMAIN.encode()
        _configure(self._workers, address)
        for engine in engines:
            front: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
            front.linger = 0
            front.bind(worker_address(directory, engine))
            self._fronts[identity(engine)] = front
        try:
            self._workers.bind(address)
        except zmq.ZMQError as error:
            self._close_sockets()
            self._authenticator.stop()
            self._context.term()
            raise UnsupportedEngine(
                f"toploc: --toploc-channel {address}: {error}; give an address of this machine, the head"
            ) from None
        self._thread = threading.Thread(target=self._run, name="toploc-relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._authenticator.stop()
        # Wakes the thread, and waits until it has closed its sockets.
        self._context.term()
        self._thread.join()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._workers, zmq.POLLIN)
        try:
            while True:
                for socket, _ in poller.poll():
                    if socket is self._workers:
                        name, *frames = socket.recv_multipart()
                        self._to_front(poller, name, frames)
                    else:
                        name = next(name for name, front in self._fronts.items() if front is socket)
                        self._workers.send_multipart([name, *socket.recv_multipart()])
        except zmq.ContextTerminated:
            pass
        finally:
            self._close_sockets()

    def _to_front(self, poller: zmq.Poller, name: bytes, frames: list[bytes]) -> None:
        front = self._fronts.get(name)
        if front is None:
            logger.error("toploc: a worker calls itself %r, which this server does not have", name)
        elif len(frames) > 1:
            front.send_multipart(frames)
        elif front not in poller:
            logger.info("toploc: the worker of %s has connected", name.decode())
            poller.register(front, zmq.POLLIN)

    def _close_sockets(self) -> None:
        for socket in (self._workers, *self._fronts.values()):
            socket.close()
