"""Building proofs from a stream of activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidActivations
from ..scheme import CHUNK_SIZE, TOPK
from .chunks import find_points, proof_dtype
from .format import encode_chunks

if TYPE_CHECKING:
    import torch


class ProofBuilder:
    """Append rows as they are generated, get the proofs of the chunks that they complete.

    It copies rows of an unfinished chunk only, never more than `chunk_size`. `rounded` says whether float32
    rows were rounded to bfloat16. Raises InvalidActivations for a chunk size or top-k below 1.
    """

    def __init__(self, chunk_size: int = CHUNK_SIZE, topk: int = TOPK) -> None:
        if chunk_size < 1 or topk < 1:
            raise InvalidActivations(f"chunks of {chunk_size} rows, top-{topk}")
        self.chunk_size = chunk_size
        self.topk = topk
        self.rounded = False
        self._rows: torch.Tensor | None = None  # [chunk_size, hidden], of which `_filled` rows are in use
        self._filled = 0

    def append(self, rows: torch.Tensor) -> list[bytes]:
        """Add a row [hidden] or rows [n, hidden]; return the proofs of the chunks that are now full.

        Raises InvalidActivations for rows of another width or dtype than those before, or so narrow that a
        row has fewer elements than top-k.
        """
        _, rounded = proof_dtype(rows)
        rows = rows.detach()[None] if rows.ndim == 1 else rows.detach()
        if rows.ndim != 2 or rows.shape[1] < self.topk:
            raise InvalidActivations(f"expected rows of at least {self.topk} elements, got {tuple(rows.shape)}")
        if self._rows is None:
            self._rows = rows.new_empty((self.chunk_size, rows.shape[1]))
        if rows.dtype != self._rows.dtype or rows.shape[1] != self._rows.shape[1]:
            raise InvalidActivations(
                f"expected rows of {self._rows.shape[1]} {self._rows.dtype}, got {tuple(rows.shape)} {rows.dtype}"
            )
        self.rounded = rounded
        full: list[torch.Tensor] = []
        if self._filled:
            taken = min(self.chunk_size - self._filled, len(rows))
            self._rows[self._filled : self._filled + taken] = rows[:taken]
            self._filled += taken
            rows = rows[taken:]
            if self._filled == self.chunk_size:
                full.append(self._rows)
                self._filled = 0
        while len(rows) >= self.chunk_size:
            full.append(rows[: self.chunk_size])
            rows = rows[self.chunk_size :]
        proofs = self._encode(full)
        if len(rows):
            self._rows[: len(rows)] = rows
            self._filled = len(rows)
        return proofs

    def finish(self) -> list[bytes]:
        """The proof of the rows left over, if any; afterwards the builder is empty and can be used again."""
        rest, self._filled = self._filled, 0
        if self._rows is None or rest == 0:
            return []
        chunk, self._rows = self._rows[:rest], None
        return self._encode([chunk])

    def _encode(self, chunks: list[torch.Tensor]) -> list[bytes]:
        points = find_points(((chunk.reshape(-1), len(chunk)) for chunk in chunks), self.topk)
        return encode_chunks(points.indices, points.patterns)
