"""One choice's hidden states on their way to proofs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toploc.errors import ProofUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ring import ChunkFeatures, Reduction


class Key(NamedTuple):
    """Names a capture: the nonce of the call of `generate` and the index of the choice."""

    nonce: str
    child: int


@dataclass(slots=True, eq=False)
class Capture:
    """Rows from position `start` on, of one engine request.

    Attributes:
        slot, epoch: where its rows lie in the ring.
        floor: position of the first row not yet reduced; rows below it are not wanted any more.
        reductions: per reduced chunk, in order, the reduction it is part of and its place in it.
        request_id: the engine's id of the request, the latest if it was preempted.
        finished_at: when the engine was done with the request (monotonic seconds), None while it runs.
    """

    key: Key
    start: int
    slot: int
    epoch: int
    floor: int
    request_id: str = ""
    reductions: list[tuple[Reduction, int]] = field(default_factory=list)
    finished_at: float | None = None

    def finish(self) -> None:
        self.finished_at = time.monotonic()

    def abandoned(self, ttl: float) -> bool:
        """Whether nobody came for the proofs within `ttl` seconds of the engine's last step."""
        return self.finished_at is not None and time.monotonic() - self.finished_at > ttl


def check_rows(chunks: Sequence[ChunkFeatures], start: int, inputs: Sequence[int]) -> None:
    """Asserts that an answer's rows are those of the tokens it is about to vouch for.

    Every misalignment that was seen in practice (a shifted row, another request's slot, a stale draft) puts a wrong
    input token on some row.

    Args:
        chunks: all of the answer's, in order.
        start: position of the first row.
        inputs: the token that went in at each position.

    Raises:
        ProofUnavailable: `rows_missing` or `rows_mismatch`.
    """
    positions = np.concatenate([chunk.positions for chunk in chunks])
    missing = np.flatnonzero(positions != np.arange(start, start + len(inputs)))
    if missing.size:
        raise ProofUnavailable("rows_missing", f"the hidden state at position {start + missing[0]} was not captured")
    input_ids = np.concatenate([chunk.input_ids for chunk in chunks])
    wrong = np.flatnonzero(input_ids != np.asarray(inputs))
    if wrong.size:
        raise ProofUnavailable(
            "rows_mismatch",
            f"the hidden state at position {start + wrong[0]} belongs to another token than the answer's",
        )
