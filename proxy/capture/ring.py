"""The last rows of hidden states of every captured request, kept on the model's device by absolute position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from .step import Step

    Ints = npt.NDArray[np.int64]

EPOCH_SHIFT: Final = 32
"""A position is stored with the epoch of its slot's owner above it, so that a row left by a former owner never passes
for one of the present owner's."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a step to store: row number, slot and slot epoch, int64 [n] each."""

    rows: Ints
    slots: Ints
    epochs: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class ChunkRefs:
    """n chunks of a ring: rows `first_positions[i] … first_positions[i] + num_rows[i] - 1` of a slot's owner, int64 [n]
    each."""

    slots: Ints
    epochs: Ints
    first_positions: Ints
    num_rows: Ints

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Features:
    """What is kept of n chunks: their top-k, and what shows that their rows are the right ones.

    Attributes:
        indices: positions of the top-k in the flattened chunk, int32 [n, k].
        patterns: their 16-bit values, uint16 [n, k].
        positions: position of each row, -1 where the ring holds no row of this request, int64 [n, 32].
        input_ids: input token of each row, int64 [n, 32]; of rows past a chunk's end, anything.
    """

    indices: npt.NDArray[np.int32]
    patterns: npt.NDArray[np.uint16]
    positions: Ints
    input_ids: Ints


class Reduction(Protocol):
    """Chunks being reduced to their features."""

    def done(self) -> bool:
        """Whether `features` returns without waiting."""

    def features(self) -> Features:
        """Features in the order asked for; waits if need be. To be called once."""


class Ring(Protocol):
    """Row storage of one worker. `num_rows` rows a slot; row of position p lies at p mod `num_rows`. A chunk may wait
    for `lag` rows after its own, to be reduced together with others."""

    num_slots: int
    num_rows: int
    lag: int

    @property
    def num_bytes(self) -> int:
        """Device memory taken."""

    def write(self, step: Step, rows: Rows, *, after_reductions: bool = False) -> None:
        """Stores rows of a step; the last writer of a position wins.

        Rows of decoding steps reach a chunk in reduction only a chunk later. `after_reductions` is for those of a
        prefill, which may lie anywhere: whatever is in reduction is reduced before.
        """

    def reduce(self, chunks: ChunkRefs, *, complete: bool = False) -> Reduction:
        """Starts the reduction of chunks in the ring: of rows as they are in the order of the model's stream now, or,
        if `complete`, of rows whose steps are known to be over."""

    def forget(self) -> None:
        """Takes whatever is in memory for rows of nobody's. For a time when no step runs, and nothing is reduced."""

    def reduce_step(self, step: Step, first_rows: Sequence[int]) -> Reduction:
        """Starts the reduction of whole chunks, consecutive rows of the step itself."""
