"""A closed loop of streams against a server: each asks again as soon as its answer has ended."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

STARTING: Final = 0.5
"""Seconds in which a stream that has read what to ask for has asked."""

PER_PROCESS: Final = 128
"""Streams that one client process reads; more of them would measure the client."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of requests: tokens in and out, each drawn from half to one and a half of its length, so that answers do not all
    end in the same step."""

    model: str
    vocabulary: int
    input_len: int
    output_len: int

    def draw(self, rng: random.Random, *, proofs: bool) -> dict[str, Any]:
        length = rng.randint(self.input_len // 2, self.input_len * 3 // 2)
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": [rng.randrange(100, self.vocabulary) for _ in range(length)],
            "max_tokens": rng.randint(self.output_len // 2, self.output_len * 3 // 2),
            "ignore_eos": True,
            "stream": True,
            "temperature": 1.0,
        }
        return body if proofs else {**body, "toploc": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Answer:
    """When it was asked for, and when each of its events came, by the monotonic clock in seconds."""

    proofs: bool
    asked: float
    events: tuple[float, ...]


class Streams:
    """`count` of them, from as many processes as they need; a context manager."""

    def __init__(self, url: str, count: int, shape: Shape) -> None:
        context = multiprocessing.get_context("spawn")
        self._proofs: Synchronized[int] = context.Value("b", 1)
        self._going: Synchronized[int] = context.Value("b", 1)
        self._running = context.Array("i", 2)
        self._answers: Any = context.Queue()
        shares = [min(PER_PROCESS, count - first) for first in range(0, count, PER_PROCESS)]
        shared = self._proofs, self._going, self._running, self._answers
        self._processes = [
            context.Process(target=_run, args=(url, share, shape, seed, *shared)) for seed, share in enumerate(shares)
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going.value = 0
        deadline = time.monotonic() + 60
        while any(process.is_alive() for process in self._processes) and time.monotonic() < deadline:
            self.taken()
            time.sleep(0.1)
        for process in self._processes:
            process.kill()

    def ask(self, *, proofs: bool) -> None:
        """What requests ask for from now on; returns once no answer to another one is under way."""
        self._proofs.value = proofs
        time.sleep(STARTING)
        while self._running[not proofs]:
            self.taken()
            time.sleep(0.02)

    def taken(self) -> list[Answer]:
        """Those that have ended since the last call. Raises RuntimeError where a client process has ended."""
        if self._going.value and not all(process.is_alive() for process in self._processes):
            raise RuntimeError("a client process ended: its error stands above")
        answers = []
        while not self._answers.empty():
            answers.append(self._answers.get())
        return answers


def _run(url: str, count: int, shape: Shape, seed: int, proofs: Any, going: Any, running: Any, answers: Any) -> None:
    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        rng = random.Random(f"{seed}:{number}")
        while going.value:
            proven = bool(proofs.value)
            with running.get_lock():
                running[proven] += 1
            asked, events = time.monotonic(), []
            async with session.post(f"{url}/v1/completions", json=shape.draw(rng, proofs=proven)) as response:
                if response.status != 200:
                    raise RuntimeError(await response.text())
                whole = False
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        events.append(time.monotonic())
                        whole = proven == (b'"toploc_proofs"' in line)
                if not whole:
                    raise RuntimeError(f"the last event of an answer {'lacks' if proven else 'has'} proofs")
            with running.get_lock():
                running[proven] -= 1
            answers.put(Answer(proven, asked, tuple(events)))

    async def run() -> None:
        unlimited, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
        # An event may hold the proofs of thousands of tokens.
        async with aiohttp.ClientSession(timeout=unlimited, connector=connector, read_bufsize=2**22) as session:
            await asyncio.gather(*(ask(session, number) for number in range(count)))

    asyncio.run(run())


def sizes(model: str) -> int:
    """How many tokens a model's vocabulary has, by its config.json."""
    config = json.loads(Path(model, "config.json").read_text("utf-8"))
    size: int = config["vocab_size"]
    return size
