"""The ring in main memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from toploc.proofs.topk import top_k
from toploc.scheme import CHUNK_SIZE

from .ring import EPOCH_SHIFT, ChunkRefs, Features, Reduction, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .step import Step

    Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Finished:
    values: Features

    def done(self) -> bool:
        return True

    def features(self) -> Features:
        return self.values


class HostRing:
    """Ring in main memory, for models on a CPU; every call is complete when it returns."""

    lag = 0
    num_bytes = 0

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

    def reduce(self, chunks: ChunkRefs, *, complete: bool = False) -> Reduction:  # noqa: ARG002
        at = (chunks.first_positions[:, None] + np.arange(CHUNK_SIZE)) % self.num_rows
        slots = chunks.slots[:, None]
        tags = self._tags[slots, at]
        owned = tags >> EPOCH_SHIFT == chunks.epochs[:, None]
        positions = np.where(owned, tags & ((1 << EPOCH_SHIFT) - 1), -1)
        rows = zip(self._values[slots, at], chunks.num_rows.tolist(), strict=True)
        return self._finished([values[:count] for values, count in rows], positions, self._input_ids[slots, at])

    def forget(self) -> None:
        self._tags.fill(-1)

    def reduce_step(self, step: Step, first_rows: Sequence[int]) -> Reduction:
        patterns = self._patterns(step)
        at = np.array(first_rows)[:, None] + np.arange(CHUNK_SIZE)
        positions, input_ids = step.positions.numpy()[at], step.input_ids.numpy()[at]
        values = [patterns[first : first + CHUNK_SIZE] for first in first_rows]
        return self._finished(values, positions.astype(np.int64), input_ids.astype(np.int64))

    def _finished(self, chunks: Sequence[npt.NDArray[np.uint16]], positions: Ints, input_ids: Ints) -> Reduction:
        top = [top_k(chunk.ravel(), self._topk) for chunk in chunks]
        indices, patterns = (np.stack(column) for column in zip(*top, strict=True))
        return Finished(Features(indices, patterns, positions, input_ids))

    def _patterns(self, step: Step) -> npt.NDArray[np.uint16]:
        return step.hidden_states.to(self._dtype).view(torch.int16).numpy().view(np.uint16)
