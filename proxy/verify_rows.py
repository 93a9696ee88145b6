"""Hidden states of prefills that verify an answer, on their way from the model to the examiner.

They are kept apart from the recorder: a prefill's rows are all needed, once, right after its only step or steps, so
they take no slot of a ring that answers in progress need.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from toploc.errors import ProofUnavailable

from .tag import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .runners.step import Step


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one step, in main memory once `copied` has happened (None: already there)."""

    states: torch.Tensor
    positions: torch.Tensor
    input_ids: torch.Tensor
    copied: torch.cuda.Event | None


@dataclass(slots=True, eq=False)
class Prefill:
    """One request's rows from position `start` on."""

    start: int
    blocks: list[Block] = field(default_factory=list)
    finished_at: float | None = None

    def states(self, inputs: Sequence[int]) -> torch.Tensor:
        """Rows [len(inputs), hidden] in order of position, once they are seen to be those of `inputs`.

        Raises:
            ProofUnavailable: `rows_missing` or `rows_mismatch`.
        """
        for block in self.blocks:
            if block.copied is not None:
                block.copied.synchronize()
        if not self.blocks:
            raise ProofUnavailable("rows_missing", "the engine ran no row of the prefill")
        count = len(inputs)
        found = torch.full((count,), -1, dtype=torch.int64)
        states = self.blocks[0].states.new_empty(count, self.blocks[0].states.shape[1])
        for block in self.blocks:
            at = block.positions.long() - self.start
            wanted = (at >= 0) & (at < count)
            states[at[wanted]] = block.states[wanted]
            found[at[wanted]] = block.input_ids.long()[wanted]
        if (found < 0).any():
            missing = self.start + int((found < 0).nonzero()[0])
            raise ProofUnavailable("rows_missing", f"the hidden state at position {missing} was not captured")
        if not torch.equal(found, torch.tensor(inputs, dtype=torch.int64)):
            raise ProofUnavailable("rows_mismatch", "a hidden state belongs to another token than the answer's")
        return states


class Prefills:
    """All of a worker's. The engine's thread calls `register`, `record` and `finished`; the side channel's others.

    How many rows there are at once is bounded where prefills begin: `--toploc-max-verify-tokens`.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._lock = threading.Lock()
        self._held: dict[str, Prefill] = {}
        self._running: dict[str, Prefill] = {}

    def register(self, request_id: str, extra_args: Mapping[str, Any]) -> bool:
        """Whether this is a prefill to verify. One that comes back after preemption goes on."""
        tag = Tag.open(extra_args, self._secret)
        if tag is None or tag.start is None:
            return False
        with self._lock:
            self._running[request_id] = self._held.setdefault(tag.nonce, Prefill(tag.start))
        return True

    def record(self, step: Step) -> None:
        """Copies rows of a forward pass, after it was launched; never waits."""
        if not self._running:
            return
        with self._lock:
            for i, request_id in enumerate(step.request_ids):
                prefill = self._running.get(request_id)
                if prefill is None:
                    continue
                first, offset, end = int(step.first_positions[i]), int(step.starts[i]), int(step.starts[i + 1])
                begin = offset + max(0, prefill.start - first)
                if begin < end:
                    prefill.blocks.append(_copy(step, slice(begin, end)))

    def finished(self, request_ids: Iterable[str]) -> None:
        if not self._running:
            return
        with self._lock:
            for request_id in request_ids:
                prefill = self._running.pop(request_id, None)
                if prefill is not None:
                    prefill.finished_at = time.monotonic()

    def take(self, nonce: str) -> Prefill | None:
        """The prefill, which is forgotten here."""
        with self._lock:
            prefill = self._held.pop(nonce, None)
            if prefill is not None:
                self._running = {key: value for key, value in self._running.items() if value is not prefill}
            return prefill

    def expire(self, ttl: float) -> int:
        """Forgets prefills that nobody asked about for `ttl` seconds after the engine was done; returns how many."""
        now = time.monotonic()
        with self._lock:
            old = [key for key, p in self._held.items() if p.finished_at is not None and now - p.finished_at > ttl]
            for key in old:
                del self._held[key]
        return len(old)

    @property
    def held(self) -> int:
        return len(self._held)


def _copy(step: Step, rows: slice) -> Block:
    states, positions, input_ids = step.hidden_states[rows], step.positions[rows], step.input_ids[rows]
    if not step.hidden_states.is_cuda:
        return Block(states.clone(), positions.clone(), input_ids.clone(), None)
    # Into pinned memory, in the order of the model's stream, so that the next step may overwrite the rows.
    copies = [part.to("cpu", non_blocking=True) for part in (states, positions, input_ids)]
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return Block(copies[0], copies[1], copies[2], copied)
