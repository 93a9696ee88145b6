"""The requests of one forward pass, and the chunks that it completes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from toploc.scheme import CHUNK_SIZE

from .chunks import Capture, EncodedChunk
from .ring import ChunkRefs, Rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from .ring import Reduction


class Slots:
    """What is known of every slot's capture, as arrays [slots]: in most batches some request came or went, and objects
    would have to be asked one by one.

    `floors`: position of the first row not yet reduced; rows below it are not wanted any more.
    """

    def __init__(self, number: int) -> None:
        self.starts, self.floors, self.epochs = np.zeros((3, number), dtype=np.int64)

    def open(self, capture: Capture) -> None:
        self.starts[capture.slot] = self.floors[capture.slot] = capture.start
        self.epochs[capture.slot] = capture.epoch

    def num_reduced(self, capture: Capture) -> int:
        """Chunks whose reduction has begun."""
        return (int(self.floors[capture.slot]) - capture.start) // CHUNK_SIZE


class Batch:
    """The captured requests of a batch as arrays, kept while the batch's requests stay the same."""

    def __init__(self, request_ids: list[str], members: list[int], captures: list[Capture], table: Slots) -> None:
        self.request_ids = request_ids
        self.members = np.array(members, dtype=np.int64)
        self.is_whole = len(members) == len(request_ids)
        self.captures = captures
        self._table = table
        self._slots = np.array([capture.slot for capture in captures], dtype=np.int64)
        self._epochs = table.epochs[self._slots]
        self.starts = table.starts[self._slots]
        self.floors = table.floors[self._slots]
        self.one_row_each = Rows(self.members, self._slots, self._epochs)

    @classmethod
    def of(cls, request_ids: Sequence[str], by_request: Mapping[str, Capture], table: Slots) -> Batch:
        captures = list(map(by_request.get, request_ids))
        members = [i for i, capture in enumerate(captures) if capture is not None]
        return cls(list(request_ids), members, [capture for capture in captures if capture is not None], table)

    def rows(self, first_rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Rows:
        """`counts[i]` rows of each member from `first_rows[i]` on."""
        which = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return Rows(first_rows[which] + within, self._slots[which], self._epochs[which])

    def chunks(self, counts: npt.NDArray[np.int64]) -> ChunkRefs:
        """The next `counts[i]` chunks of each member."""
        which = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = self.floors[which] + within * CHUNK_SIZE
        return ChunkRefs(self._slots[which], self._epochs[which], first, np.full(len(which), CHUNK_SIZE))

    def advance(self, counts: npt.NDArray[np.int64]) -> list[tuple[Capture, int]]:
        """Those chunks are taken care of; whose they are, in the order of `chunks`."""
        self.floors += counts * CHUNK_SIZE
        self._table.floors[self._slots] = self.floors
        return [(self.captures[i], int(counts[i])) for i in np.flatnonzero(counts).tolist()]


@dataclass(frozen=True, slots=True)
class Reducing:
    """Chunks on their way from the ring to proofs; `owners` says how many are each capture's, in order."""

    reduction: Reduction
    refs: ChunkRefs
    owners: Sequence[tuple[Capture, int]]

    def chunks(self) -> list[EncodedChunk]:
        """Waits for the reduction if need be."""
        return EncodedChunk.all_of(self.refs, self.reduction.features())

    def encode(self) -> None:
        chunks = iter(self.chunks())
        for capture, count in self.owners:
            capture.chunks += islice(chunks, count)
