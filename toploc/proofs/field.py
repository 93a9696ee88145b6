"""Arithmetic over GF(65497), the field of the proof polynomial: modulus, interpolation, evaluation.

Residues are held as float64. Products are below 2^32 and a sum has at most 65,500 of them, so all values are
integers below 2^49 and exact, in whatever order they are added. `_reduce` is exact there: `_RECIPROCAL`
exceeds 1/65497 by a relative 2^-53 to 2^-50, so the rounded quotient is never below a true integer quotient,
and its error, below 2^-16.5, never reaches the next one, at least 1/65497 > 2^-16 away.

The kernels call each other and therefore share one file: numba's disk cache sees changes in no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..kernels.jit import kernel, sum_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIME: Final = 65497
"""The field's size, the original library's choice; 16-bit patterns from 65497 up fold onto 0 to 38."""

_RECIPROCAL: Final = float(np.nextafter(np.nextafter(1.0 / PRIME, 1.0), 1.0))
"""A little above 1 / PRIME: see above."""

_STEP: Final = 16
"""Powers that a point keeps: one reduction for 16 terms."""


def modulus_floor(topk: int) -> int:
    """The smallest modulus an encoder may write for `topk` points.

    Indices i, j collide mod m only if m divides i - j. Below 9 * 57370 = 516,330 elements a chunk, no
    difference has two divisors in (57369, 65497]: two divisors of one d have a ratio t/(t + s) with t + s <=
    d / 57370 < 9, at most 7/8, and 65497 * 7/8 < 57370. So the k (k - 1) / 2 differences rule out at most as
    many moduli, and one of the 8,129 largest is free for k = 128. In larger chunks a difference may rule out
    more, but a modulus is ruled out with a chance of about 12 %, so the search ends far above the floor;
    should it not, the encoder raises. No modulus below k keeps k residues apart.
    """
    return max(topk, PRIME - topk * (topk - 1) // 2)


@kernel
def find_modulus(indices: NDArray[Any], floor: int) -> int:
    """The largest m in [floor, 65497] under which the integers are distinct; 0 if none, or one is negative."""
    for index in indices:
        if index < 0:
            return 0
    seen = np.empty(1024, np.uint64)
    for modulus in range(PRIME, floor - 1, -1):
        seen[:] = 0
        distinct = True
        for index in indices:
            residue = np.uint64(index) % np.uint64(modulus)
            word = residue >> np.uint64(6)
            bit = np.uint64(1) << (residue & np.uint64(63))
            if seen[word] & bit:
                distinct = False
                break
            seen[word] |= bit
        if distinct:
            return modulus
    return 0


@kernel
def _inverse_table() -> NDArray[np.float64]:
    table = np.zeros(PRIME)
    table[1] = 1
    for value in range(2, PRIME):
        table[value] = (PRIME - PRIME // value) * np.int64(table[PRIME % value]) % PRIME
    return table


INVERSES: Final = _inverse_table()
"""INVERSES[v] * v = 1 in the field; float64[65497]. Handed to the kernels, so as not to be compiled in."""


@kernel
def _reduce(value: float) -> float:
    return value - PRIME * float(np.floor(value * _RECIPROCAL))


@kernel
def _round_up(size: int, step: int) -> int:
    return (size + step - 1) // step * step


@sum_kernel
def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    total = 0.0
    for i in range(left.size):
        total += left[i] * right[i]
    return total


@kernel
def _powers(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """x^0 to x^16 of every point; float64[17, n]."""
    powers = np.empty((_STEP + 1, points.size))
    powers[0] = 1.0
    powers[1] = points
    for exponent in range(2, _STEP + 1):
        for i in range(points.size):
            powers[exponent, i] = _reduce(powers[exponent - 1, i] * points[i])
    return powers


@kernel
def _evaluate(coefficients: NDArray[np.float64], powers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the polynomial at the points of `powers`: Horner in x^16 over blocks of 16 terms."""
    size = powers.shape[1]
    values = np.zeros(size)
    padded = np.zeros(_round_up(coefficients.size, _STEP))
    padded[: coefficients.size] = coefficients
    for start in range(padded.size - _STEP, -1, -_STEP):
        for i in range(size):
            values[i] *= powers[_STEP, i]
        for j in range(0, _STEP, 8):
            a, b, c, d = padded[start + j], padded[start + j + 1], padded[start + j + 2], padded[start + j + 3]
            e, f, g, h = padded[start + j + 4], padded[start + j + 5], padded[start + j + 6], padded[start + j + 7]
            for i in range(size):
                low = (a * powers[j, i] + b * powers[j + 1, i]) + (c * powers[j + 2, i] + d * powers[j + 3, i])
                high = (e * powers[j + 4, i] + f * powers[j + 5, i]) + (g * powers[j + 6, i] + h * powers[j + 7, i])
                values[i] += low + high
        for i in range(size):
            values[i] = _reduce(values[i])
    return values


@kernel
def _times_quartic(old: NDArray[np.float64], new: NDArray[np.float64], factor: NDArray[np.float64], size: int) -> None:
    """new = old * (x^4 + f3 x^3 + f2 x^2 + f1 x + f0), `size` coefficients behind four zeros.

    Slices, because LLVM does not vectorise an index that may be negative.
    """
    f0, f1, f2, f3 = factor[0], factor[1], factor[2], factor[3]
    old0, old1, old2, old3, old4, target = old[4:], old[3:], old[2:], old[1:], old, new[4:]
    for j in range(size):
        target[j] = _reduce(f0 * old0[j] + f1 * old1[j] + f2 * old2[j] + f3 * old3[j] + old4[j])


@kernel
def _master(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of the product of all (x - x_i), ascending; float64[k + 1].

    Factors are multiplied in four at a time, so that a coefficient is reduced once per four factors. Points 0
    that fill up the last four multiply by powers of x, and are taken back by leaving out the lowest coefficients.
    """
    padded = np.zeros(_round_up(points.size, 4))
    padded[: points.size] = points
    factors = np.empty((padded.size // 4, 4))
    for i in range(len(factors)):  # (x^2 + s x + t) (x^2 + u x + v)
        w, x, y, z = padded[4 * i], padded[4 * i + 1], padded[4 * i + 2], padded[4 * i + 3]
        s, t, u, v = 2 * PRIME - w - x, _reduce(w * x), 2 * PRIME - y - z, _reduce(y * z)
        factors[i, 0] = _reduce(t * v)
        factors[i, 1] = _reduce(s * v + t * u)
        factors[i, 2] = _reduce(v + t + s * u)
        factors[i, 3] = _reduce(s + u)
    old = np.zeros(5 + padded.size)
    new = np.zeros(5 + padded.size)
    old[4] = 1.0
    for i in range(len(factors)):
        _times_quartic(old, new, factors[i], 4 * i + 5)
        old, new = new, old
    return old[4 + padded.size - points.size :]


@kernel
def _interpolate(
    points: NDArray[np.float64], values: NDArray[np.float64], inverses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients of the polynomial of degree < k through k points with distinct x, ascending.

    With M the master polynomial and c_i = y_i / M'(x_i), Lagrange's formula is the sum over i of
    c_i M(x) / (x - x_i). The quotient M(x) / (x - x_i) has as coefficient j the sum over l > j of
    M_l x_i^(l - j - 1), so the result has the sum over l > j of M_l S_(l - j - 1), with S_t the sum over i
    of c_i x_i^t: a convolution, without division or recursion.
    """
    size = points.size
    powers = _powers(points)
    master = _master(points)
    derivative = np.empty(size)
    for j in range(size):
        derivative[j] = _reduce((j + 1) * master[j + 1])
    weights = _evaluate(derivative, powers)
    for i in range(size):
        weights[i] = _reduce(values[i] * inverses[np.int64(weights[i])])

    sums = np.empty(_round_up(size, _STEP))
    for start in range(0, size, _STEP):
        for j in range(_STEP):
            sums[start + j] = _reduce(_dot(weights, powers[j]))
        for i in range(size):
            weights[i] = _reduce(weights[i] * powers[_STEP, i])

    coefficients = np.empty(size)
    for j in range(size):
        coefficients[j] = _reduce(_dot(master[j + 1 :], sums[: size - j]))
    return coefficients


@kernel
def interpolate(
    residues: NDArray[np.uint16], values: NDArray[np.uint16], inverses: NDArray[np.float64]
) -> NDArray[np.uint16]:
    """Coefficients, ascending, of the polynomial through (residue, value mod 65497); residues distinct."""
    targets = values.astype(np.float64)
    for i in range(targets.size):
        targets[i] = _reduce(targets[i])
    return _interpolate(residues.astype(np.float64), targets, inverses).astype(np.uint16)


@kernel
def evaluate(coefficients: NDArray[np.uint16], points: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The polynomial's values at field elements; uint16[n] for uint16[k] and uint16[n]."""
    return _evaluate(coefficients.astype(np.float64), _powers(points.astype(np.float64))).astype(np.uint16)


@kernel
def encode(
    indices: NDArray[Any],
    patterns: NDArray[np.uint16],
    inverses: NDArray[np.float64],
    floor: int,
    proofs: NDArray[np.uint8],
) -> int:
    """Write the proof of each row of points: uint8[n, 2 + 2k] from integer[n, k] and uint16[n, k].

    Returns n, or the number of the first row for which no modulus at or above `floor` exists.
    """
    size = indices.shape[1]
    residues = np.empty(size, np.uint16)
    for row in range(len(indices)):
        modulus = find_modulus(indices[row], floor)
        if modulus == 0:
            return row
        for i in range(size):
            residues[i] = np.uint64(indices[row, i]) % np.uint64(modulus)
        coefficients = interpolate(residues, patterns[row], inverses)
        proofs[row, 0] = modulus >> 8
        proofs[row, 1] = modulus & 0xFF
        for i in range(size):
            proofs[row, 2 + 2 * i] = coefficients[i] >> 8
            proofs[row, 3 + 2 * i] = coefficients[i] & 0xFF
    return len(indices)
