"""The honest noise of each channel, from the whole chunks of half of the honest answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import ToplocError
from ..proofs.channels import differences
from ..scheme import CHUNK_SIZE
from ..thresholds.noise import ChannelNoise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .samples import Sample

LEAST: Final = 64
"""Points that tell a channel's noise; a channel with fewer counts as a usual one."""


def noise_of(samples: Sequence[Sample], hidden_size: int, dtype: str) -> ChannelNoise:
    """Root mean squares of the differences of points, by channel and of all together, to three digits: from answers of
    even number, as everything that is fitted (`pooled_bounds`).

    Raises ToplocError where no chunk is whole, or no point differs from the verifier's.
    """
    whole = [sample for sample in samples if sample.rows == CHUNK_SIZE and sample.answer % 2 == 0]
    if not whole:
        raise ToplocError(f"no answer has a chunk of {CHUNK_SIZE} tokens")
    channels = np.concatenate([sample.indices % hidden_size for sample in whole])
    errors = np.concatenate([differences(sample.claimed, sample.patterns, dtype) for sample in whole])
    counts = np.bincount(channels, minlength=hidden_size)
    squares = np.bincount(channels, np.nan_to_num(errors) ** 2, minlength=hidden_size)
    usual = float(np.sqrt(squares.sum() / counts.sum()))
    if usual == 0:
        raise ToplocError("the honest answers' points are the verifier's own to the bit: there is no noise to go by")
    # A channel in which none has differed yet may differ by a step tomorrow.
    known = {
        int(channel): max(float(np.sqrt(squares[channel] / counts[channel])), usual / 100)
        for channel in np.flatnonzero(counts >= LEAST)
    }
    return ChannelNoise(
        hidden_size=hidden_size,
        usual=_digits(usual),
        channels={channel: _digits(value) for channel, value in known.items()},
    )


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
