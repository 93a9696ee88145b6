"""Is an answer, or a part of it, more or less surprising than the model's own? Pure functions of `TokenScores`.

An answer of the model has surprisals s with E[exp(λ s - K(λ))] = 1 at each token, given those before it, where K is the
surprisal's cumulant function there. So products of such factors are martingales, and bounds on them hold for answers of
any length and entropy; a z-score does not, where most tokens are certain. With λ above 0 they bound how much surprise
there is, with λ below 0 how little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from .scores import POWERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .scores import TokenScores


FEW: Final = 8
"""Tokens up to which the chance of an answer's surprise is that of each token's own tail, where it is less."""

DRIFT: Final = 0.01
"""Nats a token by which an engine's own surprise may differ from the verifier's for good. Of 320 answers each at three
settings the bundled model's differs by 0.001 to 0.004 (docs/evidence.md)."""

LEAST: Final = 1e-300
"""A tail that is not 0, since probabilities in single precision can be."""


@dataclass(frozen=True, slots=True)
class Surprise:
    """How surprising tokens `first` to `last` are beside the model's own.

    `excess`: sum of surprisal less entropy, nats; below 0 where there is less surprise. `z`: that in standard
    deviations. `chance`: the most probability with which an answer of the model goes as far: there, or for a window
    or a token anywhere.
    """

    first: int
    last: int
    excess: float
    z: float
    chance: float


def whole_answer(scores: TokenScores, *, low: bool = False) -> Surprise:
    """Of all tokens: how much surprise there is, or how little (`low`).

    By Chernoff's bound, min over λ of exp(sum K(λ) - λ sum s). Where there are `FEW` tokens at most and much surprise,
    or by Fisher's: each token's `tail` is uniform or larger, so that of n tokens -sum log(tail) exceeds x with a chance
    of exp(-x) sum_{k<n} x^k / k! at most (R. A. Fisher, Statistical Methods for Research Workers, 1925, section 21.1).
    The lesser of two bounds counts twice.
    """
    exponents = -_gains(scores, low=low).sum(axis=0)
    chance = math.exp(min(0.0, exponents.min()))
    count = len(scores.surprisal)
    if not low and count <= FEW:
        chance = min(1.0, 2 * min(chance, _fisher(scores.tail)))
    return _surprise(scores, 0, count - 1, chance)


def worst_window(scores: TokenScores, *, low: bool = False) -> Surprise:
    """Of the window, of any length at any place, that is least like the model's own: by its surprise, or by the lack
    of it (`low`).

    With x_t(λ) = λ s_t - K_t(λ), Shiryaev's and Roberts' statistic R_t = (1 + R_t-1) exp(x_t) sums the martingales that
    begin at each token so far. The mean of R_t over λ has expectation t, so by Doob's inequality an answer of n tokens
    has max R >= c with a chance of n / c at most (Shin, Ramdas, Rinaldo, arXiv 2203.03532, section 2.4).
    """
    gains = _gains(scores, low=low)
    powers = gains.shape[1]
    logs = np.zeros_like(gains)
    running = np.full(powers, -np.inf)
    for place, gain in enumerate(gains):
        running = np.logaddexp(0.0, running) + gain
        logs[place] = running
    means = np.logaddexp.reduce(logs, axis=1) - math.log(powers)
    last = int(means.argmax())
    likeliest = int(logs[last].argmax())
    before = np.concatenate(([0.0], gains[: last + 1, likeliest].cumsum()[:-1]))
    chance = math.exp(min(0.0, math.log(len(gains)) - means[last]))
    return _surprise(scores, int(before.argmin()), last, chance)


def rarest_token(scores: TokenScores) -> Surprise:
    """Of the one token with the least tail; of n tokens, one has a tail of q with a chance of n q at most.

    For an answer of one token this is the chance itself.
    """
    place = int(scores.tail.argmin())
    return _surprise(scores, place, place, min(1.0, len(scores.tail) * float(scores.tail[place])))


def equal_choices(token_ids: Sequence[Sequence[int]], scores: Sequence[TokenScores]) -> EqualChoices | None:
    """Of n sampled answers to one prompt: the k that begin alike against the most odds. None if no two begin alike.

    Up to the first token at which what was said has a probability below t, k given answers are equal with a chance of
    t^(k-1) at most; there are C(n, k) such groups, and n - 1 sizes of groups.
    """
    count = len(token_ids)
    order = sorted(range(count), key=lambda place: list(token_ids[place]))
    common = [_common(token_ids[one], token_ids[two]) for one, two in pairwise(order)]
    sums = [np.concatenate(([0.0], scores[place].surprisal.cumsum())) for place in order]
    worst: EqualChoices | None = None
    for first in range(count - 1):
        shared = len(token_ids[order[first]])
        for last in range(first + 1, count):
            shared = min(shared, common[last - 1])
            if shared == 0:
                break
            size = last - first + 1
            groups = math.lgamma(count + 1) - math.lgamma(size + 1) - math.lgamma(count - size + 1)
            exponent = math.log(count - 1) + groups - (size - 1) * float(sums[first][shared])
            chance = math.exp(min(0.0, exponent))
            if worst is None or chance < worst.chance:
                worst = EqualChoices(tuple(sorted(order[first : last + 1])), shared, chance)
    return worst


@dataclass(frozen=True, slots=True)
class EqualChoices:
    """The places of answers that begin with the same `tokens` tokens, and the most probability of any that do."""

    places: tuple[int, ...]
    tokens: int
    chance: float


def log_ratios(scores: TokenScores) -> dict[str, float]:
    """By λ, the logarithm of a factor whose expectation is 1 at most for an answer of the model: what is summed up over
    answers (`toploc.pooling.surprise`). `DRIFT` is taken off at each token, for the two engines' unequal logits."""
    gains = scores.surprisal[:, None] * np.array(POWERS) - scores.cumulants
    sums = gains.sum(axis=0) - DRIFT * len(gains) * np.abs(POWERS)
    return {f"{power:g}": float(total) for power, total in zip(POWERS, sums, strict=True)}


def _common(one: Sequence[int], two: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _fisher(tails: NDArray[np.float64]) -> float:
    total = -float(np.log(np.maximum(tails, LEAST)).sum())
    return min(
        1.0, sum(math.exp(k * math.log(max(total, LEAST)) - total - math.lgamma(k + 1)) for k in range(len(tails)))
    )


def _gains(scores: TokenScores, *, low: bool) -> NDArray[np.float64]:
    """x_t(λ), [tokens, λ], of the λ on one side of 0."""
    powers = np.array(POWERS)
    side = powers < 0 if low else powers > 0
    gains: NDArray[np.float64] = scores.surprisal[:, None] * powers[side] - scores.cumulants[:, side]
    return gains


def _surprise(scores: TokenScores, first: int, last: int, chance: float) -> Surprise:
    part = slice(first, last + 1)
    excess = float((scores.surprisal[part] - scores.entropy[part]).sum())
    deviation = math.sqrt(float(scores.variance[part].sum()))
    return Surprise(first, last, excess, excess / deviation if deviation > 0 else 0.0, chance)
