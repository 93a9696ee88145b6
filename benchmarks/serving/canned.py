"""A worker without an engine, for `answers.py`: `canned.py ADDRESS` has one proof for every chunk of any answer."""

from __future__ import annotations

import sys

import zmq
from toploc_proxy.channel.messages import Done, Finalize, Proofs, decode_request, encode

from toploc.protocol import num_chunks


def serve(address: str) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(address)
    proofs = [bytes((7 * i + j) % 256 for j in range(258)) for i in range(1024)]
    while True:
        *envelope, message = socket.recv_multipart()
        request = decode_request(message)
        reply = Proofs(proofs[: num_chunks(len(request.inputs))]) if isinstance(request, Finalize) else Done()
        socket.send_multipart([*envelope, encode(reply)])


if __name__ == "__main__":
    serve(sys.argv[1])
