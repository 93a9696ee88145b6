"""The verdict on a chunk's proof, and on all chunks of an answer, from the verifier's own activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..errors import InvalidActivations, InvalidThresholds, MalformedProof
from ..kernels.jit import kernel
from ..scheme import CHUNK_SIZE, TOPK
from ..thresholds.bounds import Bounds, Thresholds
from .channels import channel_error
from .chunks import count, find_points, proof_dtype, split
from .decoys import decoy_bound, decoy_positions
from .field import PRIME, evaluate
from .format import Proof, decode_proof

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from .chunks import Points

MANTISSA_BITS: Final = {"bfloat16": 7, "float16": 10}
"""Of a pattern, by dtype; above them the exponent and the sign."""

NOTHING_EQUAL: Final = 2.0**64
"""Mantissa mean and median where no point has an equal exponent: the original's figure, above any bound."""


@dataclass(frozen=True, slots=True)
class ChunkVerdict:
    """What the comparison of one proof with the verifier's activations showed.

    `mismatches`: points of k whose sign or exponent differs. `exponent_mismatches`, `mantissa_mean` and
    `mantissa_median` are the original library's figures: they ignore signs; the mantissas' absolute
    difference is taken over points of equal exponent, and the median is the upper one. `decoy_hits`: decoys,
    of `decoys`, at which the proof shows an exponent of the verifier's top-k. `bounds` is what the figures
    were held against, with the decoy bound of this chunk. `reasons` names the figures beyond their bounds,
    and `non_finite` if the verifier's own top-k has an infinity or NaN: then its activations say nothing.
    `channel_error` (`toploc.proofs.channels`) is None where the thresholds do not know the channels' noise; it
    has no bound on a chunk, only on an answer.
    """

    mismatches: int
    exponent_mismatches: int
    mantissa_mean: float
    mantissa_median: float
    decoy_hits: int
    decoys: int
    bounds: Bounds
    reasons: tuple[str, ...]
    channel_error: float | None = None

    @property
    def passed(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdicts on all chunks of an answer, in order; passed if there are any and all of them passed."""

    chunks: tuple[ChunkVerdict, ...]
    thresholds: Thresholds
    rounded: bool = False
    """The activations were float32 and have been rounded to bfloat16."""

    @property
    def passed(self) -> bool:
        return bool(self.chunks) and all(chunk.passed for chunk in self.chunks)


@kernel
def compare(claimed: NDArray[np.uint16], own: NDArray[np.uint16], mantissa_bits: int) -> tuple[int, int, float, float]:
    """mismatches, exponent mismatches, mantissa mean, upper median of uint16[k] patterns."""
    size = 1 << mantissa_bits
    differences = np.zeros(size, np.int64)  # how often each |difference| occurs
    mismatches = exponent_mismatches = total = 0
    for i in range(own.size):
        left, right = int(claimed[i]), int(own[i])
        mismatches += left >> mantissa_bits != right >> mantissa_bits
        if (left & 0x7FFF) >> mantissa_bits != (right & 0x7FFF) >> mantissa_bits:
            exponent_mismatches += 1
        else:
            difference = abs((left & (size - 1)) - (right & (size - 1)))
            differences[difference] += 1
            total += difference
    equal = own.size - exponent_mismatches
    if equal == 0:
        return mismatches, exponent_mismatches, NOTHING_EQUAL, NOTHING_EQUAL
    median = 0
    seen = differences[0]
    while seen <= equal // 2:
        median += 1
        seen += differences[median]
    return mismatches, exponent_mismatches, total / equal, float(median)


@kernel
def _decoy_hits(values: NDArray[np.uint16], own: NDArray[np.uint16], mantissa_bits: int) -> tuple[int, int, bool]:
    """Values with an exponent of `own`; patterns below 65497 that have one; whether all of `own` is finite."""
    exponents = np.zeros(0x8000 >> mantissa_bits, np.bool_)
    for pattern in own:
        exponents[(pattern & 0x7FFF) >> mantissa_bits] = True
    hits = patterns = 0
    for value in values:
        hits += exponents[(value & 0x7FFF) >> mantissa_bits]
    size = 1 << mantissa_bits
    for exponent in range(exponents.size):
        if exponents[exponent]:
            negative = 0x8000 + exponent * size
            patterns += size + min(size, max(0, PRIME - negative))
    return hits, patterns, not exponents[-1]


@lru_cache(maxsize=1024)
def _with_decoy_bound(bounds: Bounds, decoy_hits: int) -> Bounds:
    return replace(bounds, decoy_hits=decoy_hits)


def verify_points(
    proof: Proof,
    indices: NDArray[Any],
    patterns: NDArray[np.uint16],
    *,
    dtype: str,
    rows: int,
    thresholds: Thresholds,
    secret: bytes = b"",
) -> ChunkVerdict:
    """Hold one proof against the verifier's own top-k points of the chunk: integer[k] and uint16[k].

    1. The thresholds are for this dtype ("bfloat16" or "float16") and top-k, and the points are k.
    2. Evaluate the polynomial at index mod m: the patterns that the prover claims.
    3. Count points whose sign or exponent differs. Algorithm 2 of arXiv 2501.16007 compares exponents only:
       negated values pass it, and so do constant polynomials where the top-k lie close together.
    4. Where exponents are equal, take mean and upper median of the mantissas' absolute difference.
    5. Count decoys that show an exponent of the verifier's top-k; the bound is derived for this chunk.
    6. Every figure is within its bound for a chunk of `rows` rows.
    7. The verifier's own activations are finite.
    8. Where the thresholds know the noise of each channel, take the error by channel, for what is pooled.

    `secret` is the verifier's own and keeps the decoys unknown to a prover until the verdict is out.
    Raises InvalidThresholds or InvalidActivations where 1 fails.
    """
    if thresholds.dtype != dtype or thresholds.topk != proof.topk:  # 1
        raise InvalidThresholds(
            f"dtype, topk: thresholds {thresholds.name!r} are for {thresholds.dtype} and {thresholds.topk}, "
            f"the chunk is of {dtype} and {proof.topk}"
        )
    if indices.shape != (proof.topk,) or patterns.shape != (proof.topk,) or patterns.dtype != np.uint16:
        raise InvalidActivations(f"expected {proof.topk} points, got {indices.shape} and {patterns.shape}")
    mantissa_bits = MANTISSA_BITS[dtype]
    residues = (indices % proof.modulus).astype(np.uint16)
    decoys = decoy_positions(proof, residues, secret)
    values = evaluate(proof.coefficients, np.concatenate((residues, decoys)))  # 2
    mismatches, exponent_mismatches, mean, median = compare(values[: proof.topk], patterns, mantissa_bits)  # 3, 4
    hits, hit_patterns, finite = _decoy_hits(values[proof.topk :], patterns, mantissa_bits)  # 5
    bounds = thresholds.for_rows(rows)
    most_hits = bounds.decoy_hits
    if most_hits is None:
        most_hits = decoy_bound(len(decoys), hit_patterns, proof.topk, proof.modulus)
        bounds = _with_decoy_bound(bounds, most_hits)
    figures = {  # 6
        "mismatches": (mismatches, bounds.mismatches),
        "mantissa_mean": (mean, bounds.mantissa_mean),
        "mantissa_median": (median, bounds.mantissa_median),
        "decoy_hits": (hits, most_hits),
    }
    reasons = [reason for reason, (figure, bound) in figures.items() if figure > bound]
    if not finite:  # 7
        reasons.append("non_finite")
    pooled, error = thresholds.pooled, None
    if pooled is not None and pooled.noise is not None:  # 8
        error = channel_error(values[: proof.topk], patterns, indices, pooled.noise, dtype)
    return ChunkVerdict(mismatches, exponent_mismatches, mean, median, hits, len(decoys), bounds, tuple(reasons), error)


def verify_chunks(
    proofs: Sequence[Proof],
    points: Points,
    *,
    dtype: str,
    thresholds: Thresholds,
    secret: bytes = b"",
) -> Verdict:
    """`verify_points` for all chunks of an answer, in order.

    Raises MalformedProof (`count`) before any arithmetic unless there is one proof per chunk.
    """
    if len(proofs) != len(points.rows):
        raise MalformedProof("count", f"{len(proofs)} proofs for {len(points.rows)} chunks")
    verdicts = [
        verify_points(proof, indices, patterns, dtype=dtype, rows=rows, thresholds=thresholds, secret=secret)
        for proof, indices, patterns, rows in zip(proofs, points.indices, points.patterns, points.rows, strict=True)
    ]
    return Verdict(tuple(verdicts), thresholds)


def verify_activations(
    proofs: Sequence[Proof | bytes | str],
    activations: torch.Tensor | Sequence[torch.Tensor],
    *,
    chunk_size: int = CHUNK_SIZE,
    topk: int = TOPK,
    thresholds: Thresholds | None = None,
    secret: bytes = b"",
) -> Verdict:
    """Hold an answer's proofs against the verifier's activations: a tensor [tokens, hidden] or a list of
    rows.

    1. There is one proof for every `chunk_size` rows begun.
    2. Every proof decodes (`decode_proof`).
    3. Take the verifier's own top-k points of every chunk, and compare (`verify_points`).

    Without `thresholds` the paper's for the activations' dtype apply. Raises MalformedProof where 1 or 2
    fails, InvalidActivations for activations that cannot be proven, InvalidThresholds for other thresholds'
    dtype.
    """
    dtype, rounded = proof_dtype(activations)
    expected = count(activations, chunk_size)
    if len(proofs) != expected:  # 1
        raise MalformedProof("count", f"{len(proofs)} proofs for {expected} chunks")
    decoded = [decode_proof(proof.data if isinstance(proof, Proof) else proof, topk) for proof in proofs]  # 2
    own = find_points(split(activations, chunk_size), topk)  # 3
    thresholds = thresholds or Thresholds.paper(dtype)
    verdict = verify_chunks(decoded, own, dtype=dtype, thresholds=thresholds, secret=secret)
    return replace(verdict, rounded=rounded)
