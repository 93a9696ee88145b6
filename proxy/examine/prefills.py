"""Hidden states of prefills that verify an answer, on their way from the model to the examiner.

They are kept apart from the recorder: a prefill's rows are all needed, once, right after its only step or steps, so
they take no slot of a ring that answers in progress need.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from toploc.errors import ProofUnavailable

from ..channel.tag import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ..capture.step import Step

DEVICE_BYTES: Final = 2**28
"""On the GPU, of all prefills together; beyond them rows wait in main memory. 32,768 rows of a hidden size of 4,096."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one step, there once `copied` has happened (None: already)."""

    states: torch.Tensor
    positions: torch.Tensor
    input_ids: torch.Tensor
    copied: torch.cuda.Event | None

    @property
    def device_bytes(self) -> int:
        return self.states.nbytes if self.states.is_cuda else 0


@dataclass(slots=True, eq=False)
class Prefill:
    """One request's rows from position `start` on. `version`: how often weights were replaced before its first step."""

    start: int
    version: int = 0
    blocks: list[Block] = field(default_factory=list)
    finished_at: float | None = None

    def states(self, inputs: Sequence[int]) -> torch.Tensor:
        """Rows [len(inputs), hidden] in order of position, once they are seen to be those of `inputs`; on the model's
        device or in main memory, in order of the current stream.

        Raises:
            ProofUnavailable: `rows_missing` or `rows_mismatch`.
        """
        for block in self.blocks:
            if block.copied is not None:
                block.copied.synchronize()
        if not self.blocks:
            raise ProofUnavailable("rows_missing", "the engine ran no row of the prefill")
        count = len(inputs)
        device = self.blocks[0].states.device
        # One more, for rows that are not wanted.
        input_ids = torch.full((count + 1,), -1, dtype=torch.int64, device=device)
        states = self.blocks[0].states.new_empty(count + 1, self.blocks[0].states.shape[1])
        for block in self.blocks:
            at = block.positions.to(device).long() - self.start
            at = torch.where((at >= 0) & (at < count), at, count)
            states.index_copy_(0, at, block.states.to(device))
            input_ids.index_copy_(0, at, block.input_ids.to(device).long())
        states, input_ids = states[:count], input_ids[:count].cpu()
        if (input_ids < 0).any():
            missing = self.start + int((input_ids < 0).nonzero()[0])
            raise ProofUnavailable("rows_missing", f"the hidden state at position {missing} was not captured")
        if not torch.equal(input_ids, torch.tensor(inputs, dtype=torch.int64)):
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
        self._device_bytes = 0
        self._version = 0
        self._running: dict[str, Prefill] = {}

    def register(self, request_id: str, extra_args: Mapping[str, Any]) -> bool:
        """Whether this is a prefill to verify. One that comes back after preemption goes on."""
        tag = Tag.open(extra_args, self._secret)
        if tag is None or tag.start is None:
            return False
        with self._lock:
            self._running[request_id] = self._held.setdefault(tag.nonce, Prefill(tag.start, self._version))
        return True

    def weights_changing(self) -> None:
        """From here on, rows of former weights are held against nothing."""
        self._version += 1

    def is_stale(self, prefill: Prefill) -> bool:
        """Whether weights were replaced since its first step."""
        return prefill.version != self._version

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
                    block = self._copy(step, slice(begin, end))
                    self._device_bytes += block.device_bytes
                    prefill.blocks.append(block)

    def _copy(self, step: Step, rows: slice) -> Block:
        """Of rows that the next step may overwrite, in the order of the model's stream."""
        states, positions, input_ids = parts = step.hidden_states[rows], step.positions[rows], step.input_ids[rows]
        if not states.is_cuda:
            return Block(states.clone(), positions.clone(), input_ids.clone(), None)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copies = None
        if self._device_bytes + states.nbytes <= DEVICE_BYTES:
            # vLLM leaves some memory of the GPU, but nobody knows how much: the engine must not end for a verification.
            with suppress(torch.OutOfMemoryError):
                copies = [part.clone() for part in parts]
        if copies is None:
            copies = [part.to("cpu", non_blocking=True) for part in parts]
        copied.record()
        return Block(copies[0], copies[1], copies[2], copied)

    def finished(self, request_ids: Iterable[str]) -> None:
        if not self._running:
            return
        with self._lock:
            for request_id in request_ids:
                prefill = self._running.pop(request_id, None)
                if prefill is not None:
                    prefill.finished_at = time.monotonic()

    def take(self, nonce: str) -> Prefill | None:
        """The prefill, which is forgotten here, but for the memory that it takes until `release`."""
        with self._lock:
            prefill = self._held.pop(nonce, None)
            if prefill is not None:
                self._running = {key: value for key, value in self._running.items() if value is not prefill}
            return prefill

    def release(self, prefill: Prefill) -> None:
        """Lets go of the rows; they were copied, and nothing on the device reads them any more."""
        with self._lock:
            self._device_bytes -= sum(block.device_bytes for block in prefill.blocks)
            prefill.blocks.clear()

    def discard(self, nonce: str) -> None:
        """Nobody will ask about this prefill."""
        prefill = self.take(nonce)
        if prefill is not None:
            self.release(prefill)

    def expire(self, ttl: float) -> int:
        """Forgets prefills that nobody asked about for `ttl` seconds after the engine was done; returns how many."""
        now = time.monotonic()
        with self._lock:
            old = [key for key, p in self._held.items() if p.finished_at is not None and now - p.finished_at > ttl]
        for key in old:
            self.discard(key)
        return len(old)

    @property
    def held(self) -> int:
        return len(self._held)
