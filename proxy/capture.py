"""One choice's hidden states on their way to proofs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

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
        finished_at: when the engine was done with the request (monotonic seconds), None while it runs.
    """

    key: Key
    start: int
    slot: int
    epoch: int
    floor: int
    reductions: list[tuple[Reduction, int]] = field(default_factory=list)
    finished_at: float | None = None

    def finish(self) -> None:
        self.finished_at = time.monotonic()

    def abandoned(self, ttl: float) -> bool:
        """Whether nobody came for the proofs within `ttl` seconds of the engine's last step."""
        return self.finished_at is not None and time.monotonic() - self.finished_at > ttl


def check_chunk(features: ChunkFeatures, first_position: int, inputs: Sequence[int]) -> None:
    """Asserts that a chunk's rows are those of the tokens it is about to vouch for.

    Every misalignment that was seen in practice (a shifted row, another request's slot, a stale draft) puts a wrong
    input token on some row.

    Raises:
        ProofUnavailable: `rows_missing` or `rows_mismatch`.
    """
    for offset, (position, input_id, expected) in enumerate(
        zip(features.positions, features.input_ids, inputs, strict=True)
    ):
        if position != first_position + offset:
            raise ProofUnavailable(
                "rows_missing", f"the hidden state at position {first_position + offset} was not captured"
            )
        if input_id != expected:
            raise ProofUnavailable(
                "rows_mismatch",
                f"the hidden state at position {first_position + offset} belongs to another token than the answer's",
            )
