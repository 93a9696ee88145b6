"""What proofs cost an API server's processor by answer and by token, without a model or a GPU.

    python benchmarks/serving/answers.py [--concurrency 64] [--tokens 192] [--answers 256] [--repeats 9] [--sign] \\
        [--whole] [--profile FILE]

Middleware, wrapped `generate` and channel are the server's. The engine is `stand_ins.py`'s, the worker a process of
its own. Runs with proofs and without alternate. Counted is the difference of their processor time, of the event loop's
thread and of the whole process, which has ZeroMQ's thread too. Each is the least of its repeats, since what else a
machine does only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from stand_ins import STEP, WORK, Chat, Engine
from toploc_proxy.answers.context import Served
from toploc_proxy.answers.middleware import ProofMiddleware
from toploc_proxy.channel.addresses import channel_directory, worker_address
from toploc_proxy.channel.client import Channel
from toploc_proxy.engines.vllm.early import EarlyQuestions
from toploc_proxy.engines.vllm.generate import ProvingGenerate
from toploc_proxy.receipts.signing import Signer
from toploc_proxy.settings import Settings
from toploc_proxy.stores.proofs import MemoryProofs
from toploc_proxy.stores.receipts import MemoryStore

from toploc.engine import Engine as Described
from toploc.receipts.keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Scope

DESCRIBED: Final = Described.of(
    "vllm",
    "0.32.0",
    model_runner="v2",
    attention="FLASH_ATTN",
    tensor_parallel=1,
    pipeline_parallel=1,
    execution="full",
    kv_cache="bfloat16",
    quantization=None,
    device="NVIDIA H200",
)

WORKER: Final = Path(__file__).with_name("canned.py")

LONGER_THAN_AN_EVENT: Final = 1000
"""Bytes: what a test of every event would cost is no server's."""

SCOPE: Final[Scope] = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "root_path": "",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
}

Spent = tuple[int, int]
"""Nanoseconds of the event loop's thread and of the process."""


class Load:
    """So many streams, each of which asks again when it has its answer."""

    def __init__(self, options: argparse.Namespace, directory: str) -> None:
        self._options = options
        settings = Settings(channel=directory, secret="secret")
        self._channel = Channel.connect(directory, 1, 10.0)
        signer = Signer((key := SigningKey.generate()), (key.public,), MemoryStore()) if options.sign else None
        server = SimpleNamespace(
            served=Served("m", "bfloat16", None, "vllm", DESCRIBED, None),
            signer=signer,
            later=None,
            proofs=MemoryProofs(),
        )
        self._application = SimpleNamespace(state=SimpleNamespace(toploc=server))
        self._settings = settings
        content = " ".join(f"word{i}" for i in range(100))
        asked = {"model": "m", "messages": [{"role": "user", "content": content}], "stream": not options.whole}
        self._body = json.dumps(asked).encode()

    async def run(self, *, proofs: bool) -> Spent:
        engine: Any = Engine(self._options.tokens)
        app: ASGIApp = Chat(engine, whole=self._options.whole)
        if proofs:
            early = EarlyQuestions(self._channel)
            early.attach(engine)
            engine.generate = ProvingGenerate(engine.generate, self._channel, self._settings.secret, early=early)
            app = ProofMiddleware(app, self._settings)
        handler = asyncio.create_task(engine.run())
        left = iter(range(self._options.answers))
        began = time.thread_time_ns(), time.process_time_ns()
        proven = await asyncio.gather(*(self._stream(app, left, at) for at in range(self._options.concurrency)))
        spent = time.thread_time_ns() - began[0], time.process_time_ns() - began[1]
        handler.cancel()
        assert sum(proven) == (self._options.answers if proofs else 0), "not all answers were proven"
        return spent

    async def _stream(self, app: ASGIApp, left: Iterator[int], at: int) -> int:
        """Returns how many of its answers had proofs."""
        # They end apart from each other, as streams do.
        await asyncio.sleep((STEP + WORK) * self._options.tokens * at / self._options.concurrency)
        return sum([await self._ask(app) for _ in left])

    async def _ask(self, app: ASGIApp) -> bool:
        body: list[Message] = [{"type": "http.request", "body": self._body, "more_body": False}]
        proven: list[bytes] = []

        async def receive() -> Message:
            return body.pop()

        async def send(message: Message) -> None:
            if len(part := message.get("body", b"")) > LONGER_THAN_AN_EVENT and b'"proofs":[' in part:
                proven.append(part)

        await app({**SCOPE, "app": self._application}, receive, send)
        return bool(proven)


async def measure(options: argparse.Namespace, directory: str) -> np.ndarray[Any, Any]:
    """Nanoseconds [repeat, without and with proofs, thread and process]."""
    load = Load(options, directory)
    await load.run(proofs=True)
    gc.collect()
    gc.freeze()
    runs = []
    for repeat in range(options.repeats):
        order = (False, True) if repeat % 2 == 0 else (True, False)
        spent = {proofs: await load.run(proofs=proofs) for proofs in order}
        runs.append((spent[False], spent[True]))
    if options.profile:
        profile = cProfile.Profile(time.thread_time)
        profile.enable()
        await load.run(proofs=True)
        profile.disable()
        profile.dump_stats(options.profile)
    return np.array(runs, np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=192, help="of an answer")
    parser.add_argument("--answers", type=int, default=256, help="of each run")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sign", action="store_true", help="with receipts")
    parser.add_argument("--whole", action="store_true", help="in place of streams")
    parser.add_argument("--profile", help="file for the statistics of one more run, by cProfile")
    options = parser.parse_args()
    with channel_directory() as directory:
        worker = subprocess.Popen([sys.executable, str(WORKER), worker_address(directory, 0)])
        try:
            runs = asyncio.run(measure(options, directory))
        finally:
            worker.terminate()
    least = runs.min(axis=0) / 1e3 / options.answers
    for name, without, proven in zip(("event loop", "process"), *least, strict=True):
        print(f"{name}: {without:.1f} µs an answer without, {proven:.1f} with, {proven - without:.1f} ours")


if __name__ == "__main__":
    main()
