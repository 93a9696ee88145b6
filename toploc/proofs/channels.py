"""How far a chunk's points are off, each in units of its channel's honest noise."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..thresholds.noise import ChannelNoise

STEEPNESS: Final = 4.0
"""Before the logarithm. Not tuned: where it was tried first it found most (docs/evidence.md, "Other statistics")."""

OCTAVES: Final = 0.5
"""That a point counts as off at most. Where the prover's top-k has another point, the polynomial gives any number."""

MOST: Final = 1e9
"""Times the noise of its channel, likewise: the figure stays a number where the states are none."""


def differences(claimed: NDArray[np.uint16], own: NDArray[np.uint16], dtype: str) -> NDArray[np.float64]:
    """|claimed - own| of points, float64[k], no more than half an octave's steps of `own`.

    Patterns uint16[k] of `dtype`, "bfloat16" or "float16".
    """
    return _differences(claimed, own, _steps(dtype), _farthest(dtype))


def channel_error(
    claimed: NDArray[np.uint16],
    own: NDArray[np.uint16],
    indices: NDArray[Any],
    noise: ChannelNoise,
    dtype: str,
) -> float:
    """The mean over a chunk's points of ln(1 + 4 |claimed - own| / noise of the channel), 0 where all are equal.

    Patterns as for `differences`, and the points' places integer[k] in the chunk's flattened states, whose channels are
    the last axis.
    """
    return _mean_log(differences(claimed, own, dtype), noise.by_channel[indices % noise.hidden_size])


@kernel
def _differences(
    claimed: NDArray[np.uint16], own: NDArray[np.uint16], steps: NDArray[np.float64], farthest: int
) -> NDArray[np.float64]:
    found = np.empty(own.size)
    for i in range(own.size):
        magnitude = int(own[i]) & 0x7FFF
        other = int(claimed[i]) & 0x7FFF
        off = abs((-other if (claimed[i] ^ own[i]) & 0x8000 else other) - magnitude)
        found[i] = min(off, farthest) * steps[magnitude]
    return found


@kernel
def _mean_log(differences: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    total = 0.0
    for i in range(differences.size):
        ratio = differences[i] / noise[i]
        total += np.log1p(STEEPNESS * (ratio if ratio < MOST else MOST))
    return total / differences.size


def _farthest(dtype: str) -> int:
    return int(OCTAVES * (1 << (10 if dtype == "float16" else 7)))


@cache
def _steps(dtype: str) -> NDArray[np.float64]:
    """From each magnitude's number to the next, float64[32768]; NaN from infinity on, which no step leads to."""
    infinity = 0x7C00 if dtype == "float16" else 0x7F80
    patterns = np.arange(1 << 15, dtype=np.uint16)
    values = patterns.view(np.float16) if dtype == "float16" else (patterns.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        steps = np.diff(values.astype(np.float64), append=np.nan)
    steps[infinity - 1] = steps[infinity - 2]
    return steps
