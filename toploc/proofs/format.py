"""A proof: the modulus and coefficients of one chunk's polynomial, and their wire format.

Big-endian uint16 words: the modulus, then the coefficients by ascending power; 2 + 2k bytes, 258 for k = 128.
On the wire it is base64 with padding, 344 characters. docs/proof-format.md has the format and a worked
example.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidActivations, MalformedProof
from ..scheme import TOPK
from .field import INVERSES, PRIME, encode, modulus_floor

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof in its only encoding; two proofs are equal if their bytes are. Made by `decode_proof`.

    Raises MalformedProof (`length`, `modulus`, `coefficient`) for bytes that no encoder can have written.
    """

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) < 4 or len(self.data) % 2:
            raise MalformedProof("length", f"a proof has 2 + 2k bytes, not {len(self.data)}")
        floor = modulus_floor(self.topk)
        if not floor <= self.modulus <= PRIME:
            raise MalformedProof("modulus", f"modulus {self.modulus} is outside [{floor}, {PRIME}]")
        largest = self.coefficients.max()
        if largest >= PRIME:
            raise MalformedProof("coefficient", f"coefficient {largest} is not below {PRIME}")

    @property
    def topk(self) -> int:
        return len(self.data) // 2 - 1

    @property
    def modulus(self) -> int:
        return int.from_bytes(self.data[:2], "big")

    @property
    def coefficients(self) -> NDArray[np.uint16]:
        """uint16[k], by ascending power."""
        return np.frombuffer(self.data, ">u2", offset=2).astype(np.uint16)

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode()


def decode_proof(data: bytes | str, topk: int = TOPK) -> Proof:
    """The proof in these bytes, or in this base64 text.

    1. Length: exactly 2 + 2k bytes; text is measured before it is decoded, so that its size costs nothing.
    2. Text is canonical base64: standard alphabet, padded, unused bits zero, no whitespace.
    3. The modulus is one that the encoder can write: `modulus_floor(topk)` to 65497.
    4. Every coefficient is below 65497. With 1 to 3, a proof has one encoding.

    Raises MalformedProof with the reason `type`, `length`, `base64`, `modulus` or `coefficient`.
    """
    if not isinstance(topk, int) or not 0 < topk <= PRIME:
        raise MalformedProof("length", f"no proof has topk {topk!r}")
    if not isinstance(data, bytes | str):
        raise MalformedProof("type", f"a proof is bytes or base64 text, not {type(data).__name__}")
    size = 2 + 2 * topk
    expected = (size + 2) // 3 * 4 if isinstance(data, str) else size
    if len(data) != expected:  # 1
        unit = "characters" if isinstance(data, str) else "bytes"
        raise MalformedProof("length", f"a proof for topk {topk} has {expected} {unit}, not {len(data)}")
    if isinstance(data, str):  # 2
        try:
            decoded = base64.b64decode(data.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise MalformedProof("base64", "a proof's text is not base64") from None
        if len(decoded) != size or base64.b64encode(decoded).decode() != data:
            raise MalformedProof("base64", "a proof's text is not the canonical base64 of its bytes")
        data = decoded
    return Proof(data)  # 3, 4


def encode_chunks(indices: NDArray[Any], patterns: NDArray[np.uint16]) -> list[bytes]:
    """The proofs of n chunks, from integer[n, k] indices, distinct in each row, and uint16[n, k] bit
    patterns.

    The order of a row's points does not matter. Patterns from 65497 up (negative NaNs) are taken mod 65497,
    as the original does, and so cannot be recovered. Releases the GIL.
    Raises InvalidActivations for arrays of other shapes, negative or repeated indices.
    """
    if indices.ndim != 2 or indices.shape != patterns.shape or not 0 < indices.shape[1] <= PRIME:
        raise InvalidActivations(f"points of shapes {indices.shape} and {patterns.shape}")
    if indices.dtype.kind not in "iu" or patterns.dtype != np.uint16:
        raise InvalidActivations(f"a point is an integer and a uint16, not {indices.dtype}, {patterns.dtype}")
    count, topk = indices.shape
    proofs = np.empty((count, 2 + 2 * topk), np.uint8)
    points = np.ascontiguousarray(indices), np.ascontiguousarray(patterns)
    done = encode(*points, INVERSES, modulus_floor(topk), proofs)
    if done < count:
        raise InvalidActivations(f"the indices of chunk {done} are negative or repeated, or no modulus fits")
    data, size = proofs.tobytes(), 2 + 2 * topk
    return [data[start : start + size] for start in range(0, len(data), size)]


def encode_points(indices: NDArray[Any], patterns: NDArray[np.uint16]) -> bytes:
    """The proof of one chunk, 2 + 2k bytes, from its k points. See `encode_chunks`."""
    return encode_chunks(indices[None], patterns[None])[0]
