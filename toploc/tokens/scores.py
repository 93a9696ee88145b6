"""The scores of an answer's tokens: their columns, and these as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FARTHEST: Final = 1e6
"""A margin where a token was forbidden: JSON has no infinity."""

POWERS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The λ at which cumulants are taken."""

SCORES = ("margin", "best", "cut", "surprisal", "entropy", "variance", "cumulants", "replay")


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of n tokens, float64[n] each, in nats of the processed logits.

    `margin`: max l - l_y, before temperature: 0 where greedy decoding would say the token. `best`: int64[n], the token
    that it would say. `cut`: how far l_y lies outside of what top-k, top-p and min-p leave (`_truncate`); 0 within.
    `surprisal`: -log p_y, for a token outside that of the least likely one within. `entropy` and `variance`: mean
    and variance of -log p. `cumulants`: [n, len(POWERS)], log E[exp(λ s)] of the surprisal s, for Chernoff's bound.
    Greedy answers have margins alone; the rest is 0. `replay`: max (l + T g) - (l_y + T g_y), at least 0, with the
    sampler's noise g at temperature T, over tokens that sampling leaves: 0 where it would choose the token. None where
    the noise is not known.
    """

    margin: NDArray[np.float64]
    best: NDArray[np.int64]
    cut: NDArray[np.float64]
    surprisal: NDArray[np.float64]
    entropy: NDArray[np.float64]
    variance: NDArray[np.float64]
    cumulants: NDArray[np.float64]
    replay: NDArray[np.float64] | None = None


def column_bytes(column: np.ndarray) -> bytes:
    # Token ids are far below 2**53.
    return np.ascontiguousarray(column, dtype=np.float64).tobytes()
