"""A worker whose every frame the test writes."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import zmq
from toploc_proxy.channel.addresses import worker_address
from toploc_proxy.channel.messages import decode_request, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROOF = b"p" * 258


@contextmanager
def worker(directory: str, answer: Callable[[Any], list[list[bytes]]], engine: int = 0) -> Iterator[None]:
    """A peer that sends the frames of `answer(request)`, in which b"?" stands for the request's sequence number."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.bind(worker_address(directory, engine))
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            if socket.poll(20):
                client, sequence, message = socket.recv_multipart()
                for frames in answer(decode_request(message)):
                    socket.send_multipart([client, *(sequence if frame == b"?" else frame for frame in frames)])
        socket.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        context.term()


def reply(message: object) -> list[list[bytes]]:
    return [[b"?", encode(message)]]
