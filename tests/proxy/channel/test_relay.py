"""The side channel over TCP: real sockets, the real worker's end, and peers that should not be there."""

from __future__ import annotations

import asyncio
import socket as sockets_module
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
import zmq
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.recorder import Recorder
from toploc_proxy.channel.addresses import channel_directory, identity
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import PROTOCOL, Welcome
from toploc_proxy.channel.relay import KeyPair, Relay, connect_worker
from toploc_proxy.channel.service import Service
from toploc_proxy.local_server import free_port

from toploc.errors import UnsupportedEngine
from toploc.scheme import TOPK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET, OTHER = "s" * 64, "t" * 64
WELCOME = Welcome(PROTOCOL, "0", "v1", 256, "bfloat16", None, 8)


@pytest.fixture
def address() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def relay(sockets: str, address: str) -> Iterator[Relay]:
    with Relay(sockets, range(2), address, SECRET) as relay:
        yield relay


def start_worker(address: str, engine: int, slots: int = 8, secret: str = SECRET) -> None:
    connect = partial(connect_worker, address=address, secret=secret, engine=engine)
    recorder = Recorder(HostRing(1, 64, 128, torch.bfloat16, TOPK), SECRET)
    welcome = msgspec.structs.replace(WELCOME, slots=slots)
    Service("unused", recorder, welcome, capture_ttl=60, connect=connect).start()


def hello(directory: str, engines: int, timeout: float) -> list[int]:
    """Slots of each worker, which tell them apart. Raises TimeoutError if one is silent."""

    async def main() -> list[int]:
        # Two front ends at once get their own answers.
        channels = [Channel.connect(directory, engines, timeout) for _ in range(2)]
        try:
            first, second = await asyncio.gather(*(channel.hello(timeout) for channel in channels))
        finally:
            for channel in channels:
                channel.close()
            await asyncio.sleep(0)
        assert first == second
        return [welcome.slots for welcome in first]

    return asyncio.run(main())


def test_each_engine_is_reached(relay: Relay, sockets: str, address: str) -> None:
    start_worker(address, 1, slots=11)
    start_worker(address, 0, slots=10)
    assert hello(sockets, 2, 20) == [10, 11]


def test_worker_before_the_head_and_front_end_before_the_worker(sockets: str, address: str) -> None:
    async def main() -> int:
        channel = Channel.connect(sockets, 1, 20)
        asking = asyncio.create_task(channel.hello(20))
        await asyncio.sleep(0.1)
        with Relay(sockets, [0], address, SECRET):
            await asyncio.sleep(0.1)
            start_worker(address, 0)
            [welcome] = await asking
        channel.close()
        return welcome.slots

    assert asyncio.run(main()) == 8


def with_another_secret(socket: zmq.Socket[bytes], address: str) -> None:
    connect_worker(socket, address, OTHER, 0)


def with_the_heads_public_key_alone(socket: zmq.Socket[bytes], address: str) -> None:
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = KeyPair.derive(SECRET, "head").public
    _claim(socket, address)


def with_no_key(socket: zmq.Socket[bytes], address: str) -> None:
    _claim(socket, address)


def _claim(socket: zmq.Socket[bytes], address: str) -> None:
    socket.routing_id = identity(0)
    socket.connect(address)
    socket.send(b"")


@pytest.mark.parametrize("intrude", [with_another_secret, with_the_heads_public_key_alone, with_no_key])
def test_a_peer_without_the_secret(
    intrude: Callable[[zmq.Socket[bytes], str], None], relay: Relay, sockets: str, address: str
) -> None:
    """It gets no request, although it came first under a worker's name, and the worker is served as ever."""
    context = zmq.Context()
    intruder = context.socket(zmq.DEALER)
    intruder.linger = 0
    try:
        intrude(intruder, address)
        with pytest.raises(TimeoutError):
            hello(sockets, 1, 0.5)
        start_worker(address, 0, slots=9)
        assert hello(sockets, 1, 20) == [9]
        assert not intruder.poll(0)
    finally:
        intruder.close()
        context.term()


def test_a_peer_that_speaks_no_zeromq(relay: Relay, sockets: str, address: str) -> None:
    port = int(address.rpartition(":")[2])
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, b""):
        with sockets_module.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(data)
    start_worker(address, 0)
    assert hello(sockets, 1, 20) == [8]


def test_an_engine_that_the_server_does_not_have(relay: Relay, sockets: str, address: str) -> None:
    start_worker(address, 7)
    start_worker(address, 0)
    assert hello(sockets, 1, 20) == [8]


def test_nothing_travels_in_the_clear(relay: Relay, address: str) -> None:
    """What passes on TCP is read by a man in the middle, who finds no word of it."""
    with sockets_module.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        start_worker(f"tcp://127.0.0.1:{port}", 0)
        near, _ = listener.accept()
        with near, sockets_module.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as far:
            seen = bytearray()
            _pump(near, far, seen, seconds=2)
    assert len(seen) > 200
    assert b"engine-0" not in seen


def _pump(near: sockets_module.socket, far: sockets_module.socket, seen: bytearray, seconds: float) -> None:
    for side in (near, far):
        side.settimeout(0.05)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for source, sink in ((near, far), (far, near)):
            try:
                data = source.recv(65536)
            except TimeoutError:
                continue
            seen += data
            sink.sendall(data)


def test_an_address_of_another_machine(sockets: str) -> None:
    with pytest.raises(UnsupportedEngine, match="give an address of this machine") as caught:
        Relay(sockets, [0], "tcp://192.0.2.1:9000", SECRET)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_taken(relay: Relay, address: str) -> None:
    with channel_directory() as directory, pytest.raises(UnsupportedEngine, match="in use"):
        Relay(directory, [0], address, SECRET)
