"""The original library's names (toploc 0.1.6) on top of this one; docs/compatibility.md lists what differs.

These functions report figures and judge nothing: they ignore signs and know no decoys. New code uses
`ProofBuilder` and `verify_activations`.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import InvalidActivations, MalformedProof
from .proofs.chunks import count, find_points, proof_dtype, split
from .proofs.field import PRIME, evaluate
from .proofs.format import decode_proof, encode_chunks, encode_points
from .proofs.verdict import MANTISSA_BITS, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    Activations = torch.Tensor | Sequence[torch.Tensor]


@dataclass(slots=True, repr=False)
class ProofPoly:
    """A proof as a list of coefficients, ascending, and a modulus; compared by both.

    `rounded` says that it was built from float32 activations, rounded to bfloat16.
    """

    coeffs: list[int]
    modulus: int
    rounded: bool = field(default=False, compare=False, kw_only=True)

    def __call__(self, x: int) -> int:
        """The polynomial's value at x mod m: y for every point (x, y) that it was built from."""
        coefficients = np.array([value % PRIME for value in self.coeffs], np.uint16)
        point = x % (self.modulus or PRIME) % PRIME
        return int(evaluate(coefficients, np.array([point], np.uint16))[0])

    def __len__(self) -> int:
        return len(self.coeffs)

    def __repr__(self) -> str:
        return f"ProofPoly[{self.modulus}]({self.coeffs})"

    @classmethod
    def from_points(cls, x: Sequence[int], y: Sequence[int]) -> ProofPoly:
        """The polynomial through (x mod m, y mod 65497). Raises InvalidActivations without distinct points."""
        try:
            indices = np.array([int(value) for value in x], np.int64)
            patterns = np.array([int(value) % PRIME for value in y], np.uint16)
        except (OverflowError, TypeError, ValueError) as error:
            raise InvalidActivations(f"points are two lists of integers: {error}") from None
        return cls.from_bytes(encode_points(indices, patterns))

    @classmethod
    def from_points_tensor(cls, x: torch.Tensor, y: torch.Tensor) -> ProofPoly:
        """`from_points` of integer[k] indices and the bit patterns of float[k], or integer[k], values.

        float32 values are rounded to bfloat16. Raises InvalidActivations for other tensors.
        """
        if x.ndim != 1 or y.ndim != 1 or x.is_floating_point() or x.is_complex() or x.is_meta or y.is_meta:
            raise InvalidActivations(f"expected integer[k] and values[k], got {x.dtype} {y.dtype}")
        rounded = False
        if y.is_floating_point():
            _, rounded = proof_dtype(y)
            y = (y.to(torch.bfloat16) if rounded else y).view(torch.int16).int() & 0xFFFF
        poly = cls.from_points(x.tolist(), y.tolist())
        poly.rounded = rounded
        return poly

    @classmethod
    def null(cls, length: int) -> ProofPoly:
        """`length` zero coefficients and modulus 0: what the original returned for an error. No valid
        proof."""
        return cls([0] * length, 0)

    @classmethod
    def from_bytes(cls, data: bytes) -> ProofPoly:
        """Decode strictly, of whatever top-k the length stands for. Raises MalformedProof."""
        return cls._from(data, len(data) if isinstance(data, bytes) else 0)

    @classmethod
    def from_base64(cls, base64_str: str) -> ProofPoly:
        """Decode strictly, of whatever top-k the length stands for. Raises MalformedProof."""
        text = isinstance(base64_str, str)
        return cls._from(base64_str, len(base64_str) // 4 * 3 - base64_str.count("=") if text else 0)

    @classmethod
    def _from(cls, data: bytes | str, size: int) -> ProofPoly:
        proof = decode_proof(data, max(size // 2 - 1, 1))
        return cls(proof.coefficients.tolist(), proof.modulus)

    def to_bytes(self) -> bytes:
        """2 + 2k bytes. Raises MalformedProof for a number that two bytes do not hold."""
        try:
            return struct.pack(f">{1 + len(self.coeffs)}H", self.modulus, *self.coeffs)
        except struct.error:
            raise MalformedProof("coefficient", "modulus and coefficients are integers below 65536") from None

    def to_base64(self) -> str:
        """`to_bytes` as base64 text."""
        return base64.b64encode(self.to_bytes()).decode()


@dataclass(frozen=True, slots=True, repr=False)
class VerificationResult:
    """Exponent mismatches of k, mean and upper median of the mantissa difference where exponents are equal.

    `rounded` says that the activations were float32 and have been rounded to bfloat16.
    """

    exp_mismatches: int
    mant_err_mean: float
    mant_err_median: float
    rounded: bool = field(default=False, compare=False, kw_only=True)

    def __repr__(self) -> str:
        return (
            f"VerificationResult[exp_mismatches={self.exp_mismatches}, "
            f"mant_err_mean={self.mant_err_mean:g}, mant_err_median={self.mant_err_median:g}]"
        )


def build_proofs_bytes(
    activations: Activations, decode_batching_size: int, topk: int, skip_prefill: bool = False
) -> list[bytes]:
    """The proof of every chunk of `decode_batching_size` rows (or list items), 2 + 2 topk bytes each.

    Without `skip_prefill` the first item, or row of a tensor, is a chunk of its own. Raises
    InvalidActivations where the original returned null proofs: a chunk of fewer than `topk` elements, other
    dtypes or shapes.
    """
    proof_dtype(activations)
    points = find_points(split(activations, decode_batching_size, skip_prefill), topk)
    return encode_chunks(points.indices, points.patterns)


def build_proofs(
    activations: Activations, decode_batching_size: int, topk: int, skip_prefill: bool = False
) -> list[ProofPoly]:
    """`build_proofs_bytes` as polynomials, which also say whether float32 was rounded."""
    _, rounded = proof_dtype(activations)
    polys = [
        ProofPoly.from_bytes(proof)
        for proof in build_proofs_bytes(activations, decode_batching_size, topk, skip_prefill)
    ]
    for poly in polys:
        poly.rounded = rounded
    return polys


def build_proofs_base64(
    activations: Activations, decode_batching_size: int, topk: int, skip_prefill: bool = False
) -> list[str]:
    """`build_proofs_bytes` as base64 text."""
    proofs = build_proofs_bytes(activations, decode_batching_size, topk, skip_prefill)
    return [base64.b64encode(proof).decode() for proof in proofs]


def verify_proofs(
    activations: Activations,
    proofs: Sequence[ProofPoly],
    decode_batching_size: int,
    topk: int,
    skip_prefill: bool = False,
) -> list[VerificationResult]:
    """The original's figures for every chunk; list and tensor input agree, and have the upper median.

    Raises MalformedProof for a proof that no encoder can have written, and (`count`) unless there is one
    proof per chunk; InvalidActivations as `build_proofs_bytes`.
    """
    encoded = [poly.to_bytes() for poly in proofs]
    return verify_proofs_bytes(activations, encoded, decode_batching_size, topk, skip_prefill)


def verify_proofs_bytes(
    activations: Activations,
    proofs: Sequence[bytes],
    decode_batching_size: int,
    topk: int,
    skip_prefill: bool = False,
) -> list[VerificationResult]:
    """`verify_proofs` of encoded proofs."""
    return _verify(activations, proofs, decode_batching_size, topk, skip_prefill)


def verify_proofs_base64(
    activations: Activations,
    proofs: Sequence[str],
    decode_batching_size: int,
    topk: int,
    skip_prefill: bool = False,
) -> list[VerificationResult]:
    """`verify_proofs` of base64 text."""
    return _verify(activations, proofs, decode_batching_size, topk, skip_prefill)


def _verify(
    activations: Activations,
    proofs: Sequence[bytes | str],
    decode_batching_size: int,
    topk: int,
    skip_prefill: bool,
) -> list[VerificationResult]:
    dtype, rounded = proof_dtype(activations)
    expected = count(activations, decode_batching_size, skip_prefill)
    if len(proofs) != expected:
        raise MalformedProof("count", f"{len(proofs)} proofs for {expected} chunks")
    decoded = [decode_proof(proof, topk) for proof in proofs]
    own = find_points(split(activations, decode_batching_size, skip_prefill), topk)
    results = []
    for proof, indices, patterns in zip(decoded, own.indices, own.patterns, strict=True):
        claimed = evaluate(proof.coefficients, (indices % proof.modulus).astype(np.uint16))
        _, mismatches, mean, median = compare(claimed, patterns, MANTISSA_BITS[dtype])
        results.append(VerificationResult(mismatches, mean, median, rounded=rounded))
    return results
