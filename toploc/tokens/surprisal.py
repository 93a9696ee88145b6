"""Is an answer, or a part of it, more surprising than the model's own would be? Pure functions of `TokenScores`.

An answer of the model has surprisals s with E[exp(λ s - K(λ))] = 1 at each token, given those before it, where K is the
surprisal's cumulant function there. So products of such factors are martingales, and bounds on them hold for answers of
any length and entropy; a z-score alone does not, where most tokens are certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .scores import POWERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .scores import TokenScores


@dataclass(frozen=True, slots=True)
class Surprise:
    """How much more surprising tokens `first` to `last` are than the model's own.

    `excess`: sum of surprisal less entropy, nats. `z`: that in standard deviations. `chance`: the most probability with
    which an answer of the model is as surprising: there, or for a window anywhere.
    """

    first: int
    last: int
    excess: float
    z: float
    chance: float


def whole_answer(scores: TokenScores) -> Surprise:
    """Of all tokens, by Chernoff's bound: min over λ of exp(sum K(λ) - λ sum s)."""
    exponents = -_gains(scores).sum(axis=0)
    return _surprise(scores, 0, len(scores.surprisal) - 1, math.exp(min(0.0, exponents.min())))


def worst_window(scores: TokenScores) -> Surprise:
    """Of the window, of any length at any place, that is least like the model's own.

    With x_t(λ) = λ s_t - K_t(λ), Shiryaev's and Roberts' statistic R_t = (1 + R_t-1) exp(x_t) sums the martingales that
    begin at each token so far. The mean of R_t over λ has expectation t, so by Doob's inequality an answer of n tokens
    has max R >= c with a chance of n / c at most (Shin, Ramdas, Rinaldo, arXiv 2203.03532, section 2.4).
    """
    gains = _gains(scores)
    logs = np.zeros_like(gains)
    running = np.full(len(POWERS), -np.inf)
    for place, gain in enumerate(gains):
        running = np.logaddexp(0.0, running) + gain
        logs[place] = running
    means = np.logaddexp.reduce(logs, axis=1) - math.log(len(POWERS))
    last = int(means.argmax())
    likeliest = int(logs[last].argmax())
    before = np.concatenate(([0.0], gains[: last + 1, likeliest].cumsum()[:-1]))
    chance = math.exp(min(0.0, math.log(len(gains)) - means[last]))
    return _surprise(scores, int(before.argmin()), last, chance)


def _gains(scores: TokenScores) -> NDArray[np.float64]:
    """x_t(λ), [tokens, len(POWERS)]."""
    gains: NDArray[np.float64] = scores.surprisal[:, None] * np.array(POWERS) - scores.cumulants
    return gains


def _surprise(scores: TokenScores, first: int, last: int, chance: float) -> Surprise:
    part = slice(first, last + 1)
    excess = float((scores.surprisal[part] - scores.entropy[part]).sum())
    deviation = math.sqrt(float(scores.variance[part].sum()))
    return Surprise(first, last, excess, excess / deviation if deviation > 0 else 0.0, chance)
