"""The last rows of hidden states of every captured request, kept on the model's device by absolute position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from toploc.topk import top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .runners.step import Step

    Ints = npt.NDArray[np.int64]

# A position is stored with the epoch of its slot's owner above it, so that a row left by a former owner never
# passes for one of the present owner's.
EPOCH_SHIFT = 32


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a step to store: row number, slot and slot epoch, int64 [n] each."""

    rows: Ints
    slots: Ints
    epochs: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """Rows `first_position … first_position + num_rows - 1` of a slot's owner, in the ring."""

    slot: int
    epoch: int
    first_position: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class ChunkFeatures:
    """What is kept of a chunk: its top-k, and what shows that its rows are the right ones.

    Attributes:
        indices: positions of the top-k in the flattened chunk, int32 [k].
        patterns: their 16-bit values, uint16 [k].
        positions: position of each row, -1 where the ring holds no row of this request, int64 [rows].
        input_ids: input token of each row, int64 [rows].
    """

    indices: npt.NDArray[np.int32]
    patterns: npt.NDArray[np.uint16]
    positions: Ints
    input_ids: Ints


class Reduction(Protocol):
    """Chunks being reduced to their features."""

    def done(self) -> bool:
        """Whether `features` returns without waiting."""

    def features(self) -> list[ChunkFeatures]:
        """Features in the order asked for; waits if need be."""


class Ring(Protocol):
    """Row storage of one worker. `num_rows` rows a slot; row of position p lies at p mod `num_rows`."""

    num_slots: int
    num_rows: int

    def write(self, step: Step, rows: Rows, *, after_reductions: bool = False) -> None:
        """Stores rows of a step; the last writer of a position wins.

        Rows of decoding steps reach a chunk in reduction only a chunk later. `after_reductions` is for those of a
        prefill, which may lie anywhere: whatever is in reduction is reduced before.
        """

    def reduce(self, chunks: Sequence[ChunkRef], *, complete: bool = False) -> Reduction:
        """Starts the reduction of chunks in the ring; `complete` if the steps that wrote them are known to be over."""

    def reduce_step(self, step: Step, first_rows: Sequence[int], chunk_size: int) -> Reduction:
        """Starts the reduction of whole chunks of `chunk_size` consecutive rows of the step itself."""


@dataclass(frozen=True, slots=True)
class _Finished:
    values: list[ChunkFeatures]

    def done(self) -> bool:
        return True

    def features(self) -> list[ChunkFeatures]:
        return self.values


class HostRing:
    """Ring in main memory, for models on a CPU; every call is complete when it returns."""

    def __init__(self, num_slots: int, num_rows: int, hidden_size: int, dtype: torch.dtype, topk: int) -> None:
        self.num_slots = num_slots
        self.num_rows = num_rows
        self._dtype = dtype
        self._topk = topk
        self._values = np.zeros((num_slots, num_rows, hidden_size), dtype=np.uint16)
        self._tags = np.full((num_slots, num_rows), -1, dtype=np.int64)
        self._input_ids = np.zeros((num_slots, num_rows), dtype=np.int64)

    def write(self, step: Step, rows: Rows, *, after_reductions: bool = False) -> None:  # noqa: ARG002
        positions = step.positions.numpy()[rows.rows].astype(np.int64)
        at = positions % self.num_rows
        self._values[rows.slots, at] = self._patterns(step)[rows.rows]
        self._input_ids[rows.slots, at] = step.input_ids.numpy()[rows.rows]
        self._tags[rows.slots, at] = (rows.epochs << EPOCH_SHIFT) + positions

    def reduce(self, chunks: Sequence[ChunkRef], *, complete: bool = False) -> Reduction:  # noqa: ARG002
        return _Finished([self._reduce(chunk) for chunk in chunks])

    def _reduce(self, chunk: ChunkRef) -> ChunkFeatures:
        at = np.arange(chunk.first_position, chunk.first_position + chunk.num_rows) % self.num_rows
        tags = self._tags[chunk.slot, at]
        positions = np.where(tags >> EPOCH_SHIFT == chunk.epoch, tags & ((1 << EPOCH_SHIFT) - 1), -1)
        indices, patterns = top_k(self._values[chunk.slot, at].ravel(), self._topk)
        return ChunkFeatures(indices, patterns, positions, self._input_ids[chunk.slot, at])

    def reduce_step(self, step: Step, first_rows: Sequence[int], chunk_size: int) -> Reduction:
        patterns = self._patterns(step)
        result = []
        for first in first_rows:
            rows = slice(first, first + chunk_size)
            indices, values = top_k(patterns[rows].ravel(), self._topk)
            positions = step.positions[rows].numpy().astype(np.int64)
            result.append(ChunkFeatures(indices, values, positions, step.input_ids[rows].numpy().astype(np.int64)))
        return _Finished(result)

    def _patterns(self, step: Step) -> npt.NDArray[np.uint16]:
        return step.hidden_states.to(self._dtype).view(torch.int16).numpy().view(np.uint16)
