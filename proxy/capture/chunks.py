"""One choice's hidden states on their way to proofs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toploc.errors import InvalidActivations, ProofUnavailable
from toploc.proofs.format import encode_chunks, encode_points
from toploc.scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ..channel.tag import Key
    from .ring import ChunkRefs, Features
    from .weights import Spans, Weights


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk that was reduced and encoded. It holds bytes and no views: those would keep alive the arrays of all the
    chunks that were reduced with it.

    Attributes:
        proof: 258 bytes, None if the features are none that can be encoded.
        input_ids: input token of each row, int64.
        missing: position of the first row that the ring did not hold, None if it held all.
    """

    proof: bytes | None
    input_ids: bytes
    missing: int | None

    @classmethod
    def all_of(cls, refs: ChunkRefs, features: Features) -> list[EncodedChunk]:
        """The chunks that `refs` names, from their features; encoded in one go, without the GIL."""
        proofs = _encode(features)
        rows = np.arange(CHUNK_SIZE)
        expected = refs.first_positions[:, None] + rows
        wrong = (features.positions != expected) & (rows < refs.num_rows[:, None])
        first_wrong = np.where(wrong.any(axis=1), refs.first_positions + wrong.argmax(axis=1), -1).tolist()
        ids, width = features.input_ids.tobytes(), features.input_ids.itemsize
        starts = range(0, len(ids), CHUNK_SIZE * width)
        return [
            cls(proof, ids[start : start + count * width], None if missing < 0 else missing)
            for proof, start, count, missing in zip(proofs, starts, refs.num_rows.tolist(), first_wrong, strict=True)
        ]


@dataclass(slots=True, eq=False)
class Capture:
    """Rows from position `start` on, of one engine request.

    Attributes:
        slot, epoch: where its rows lie in the ring.
        chunks: those encoded so far, in order.
        weights: that computed them.
        request_id: the engine's id of the request, the latest if it was preempted.
        finished_at: when the engine was done with the request (monotonic seconds), None while it runs.
    """

    key: Key
    start: int
    slot: int
    epoch: int
    weights: Weights
    request_id: str = ""
    chunks: list[EncodedChunk] = field(default_factory=list)
    finished_at: float | None = None

    def finish(self) -> None:
        self.finished_at = time.monotonic()

    def abandoned(self, ttl: float) -> bool:
        """Whether nobody came for the proofs within `ttl` seconds of the engine's last step."""
        return self.finished_at is not None and time.monotonic() - self.finished_at > ttl


class Proven(NamedTuple):
    """Of one answer: its proofs, and which weights made it."""

    proofs: list[bytes]
    weights: Spans


def proofs_of(chunks: Sequence[EncodedChunk], start: int, inputs: Sequence[int]) -> list[bytes]:
    """An answer's proofs, once its rows are seen to be those of the tokens that they are about to vouch for.

    Every misalignment that was seen in practice (a shifted row, another request's slot, a stale draft) puts a wrong
    input token on some row.

    Args:
        chunks: all of the answer's, in order.
        start: position of the first row.
        inputs: the token that went in at each position.

    Raises:
        ProofUnavailable: `rows_missing`, `rows_mismatch` or `rows_invalid`.
    """
    missing = next((chunk.missing for chunk in chunks if chunk.missing is not None), None)
    if missing is not None:
        raise ProofUnavailable("rows_missing", f"the hidden state at position {missing} was not captured")
    expected = np.array(inputs, dtype=np.int64)
    captured = b"".join(chunk.input_ids for chunk in chunks)
    if captured != expected.tobytes():
        wrong = np.flatnonzero(np.frombuffer(captured, dtype=np.int64) != expected)
        raise ProofUnavailable(
            "rows_mismatch",
            f"the hidden state at position {start + wrong[0]} belongs to another token than the answer's",
        )
    proofs = [chunk.proof for chunk in chunks if chunk.proof is not None]
    if len(proofs) < len(chunks):
        raise ProofUnavailable("rows_invalid", "the hidden states of a chunk cannot be encoded")
    return proofs


def _encode(features: Features) -> list[bytes | None]:
    try:
        return list(encode_chunks(features.indices, features.patterns))
    except InvalidActivations:
        return [_encode_one(*points) for points in zip(features.indices, features.patterns, strict=True)]


def _encode_one(indices: npt.NDArray[np.int32], patterns: npt.NDArray[np.uint16]) -> bytes | None:
    try:
        return encode_points(indices, patterns)
    except InvalidActivations:
        return None
