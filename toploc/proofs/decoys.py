"""Decoys: field elements outside the verifier's points, where an honest polynomial is pseudo-random.

A forger without the activations cannot tell the residues of the verifier's top-k from any others, so a
polynomial that shows plausible exponents at the former shows them at the latter equally often. An honest one
is fixed by its k points and elsewhere unrelated to them. docs/proof-format.md derives bound and number.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from math import exp, lgamma, log, log1p
from typing import TYPE_CHECKING, Final

import numpy as np

from ..kernels.jit import kernel
from .field import PRIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .format import Proof

DECOYS: Final = 256
"""Positions tried per chunk. With 256 a forger's best chance to pass both the bound of 38 mismatches of 128
and the derived hit bound is below 1e-7 for up to 8 exponents in float16, less in bfloat16; with 128 it is
1.4e-4."""

FALSE_ALARM: Final = 1e-9
"""The chance, per chunk, that an honest polynomial exceeds the derived hit bound."""


@kernel
def _positions(words: NDArray[np.uint32], residues: NDArray[np.uint16], modulus: int) -> NDArray[np.uint16]:
    taken = np.zeros(modulus, np.bool_)
    for residue in residues:
        taken[residue] = True
    positions = np.empty(words.size, np.uint16)
    for i in range(words.size):
        position = words[i] % np.uint32(modulus)
        while taken[position]:
            position = (position + np.uint32(1)) % np.uint32(modulus)
        taken[position] = True
        positions[i] = position
    return positions


def decoy_positions(proof: Proof, residues: NDArray[np.uint16], secret: bytes = b"") -> NDArray[np.uint16]:
    """Distinct field elements in [0, m) outside `residues`: 256, or m - k if that is less.

    Words of SHAKE-256 over the secret's length, the secret and the proof; each mod m, moved up to the next
    free element. Without a secret a forger can try proofs until the positions suit it.
    """
    count = min(DECOYS, proof.modulus - len(residues))
    message = b"toploc decoys 1" + len(secret).to_bytes(8, "big") + secret + proof.data
    words = np.frombuffer(hashlib.shake_256(message).digest(4 * count), "<u4")
    positions: NDArray[np.uint16] = _positions(words, residues, proof.modulus)
    return positions


@lru_cache(maxsize=4096)
def decoy_bound(decoys: int, patterns: int, topk: int, modulus: int) -> int:
    """The most hits that an honest polynomial shows, but for a chance of at most 1e-9.

    `patterns` is the number of values below 65497 that count as a hit. A decoy hits because it is one of the
    prover's own points, with a chance of at most k / (m - k), or because a pseudo-random value falls among
    `patterns` of 65497. The bound is the smallest b at which a binomial variable exceeds b with a chance of
    at most `FALSE_ALARM`; it is `decoys` where the test has no power.
    """
    chance = patterns / PRIME + topk / max(modulus - topk, 1)
    if chance >= 1:
        return decoys
    tail = 0.0
    for hits in range(decoys, 0, -1):
        ways = lgamma(decoys + 1) - lgamma(hits + 1) - lgamma(decoys - hits + 1)
        tail += exp(ways + hits * log(chance) + (decoys - hits) * log1p(-chance))
        if tail > FALSE_ALARM:
            return hits
    return 0
