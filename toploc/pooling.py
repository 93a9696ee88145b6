"""Evidence pooled over the chunks of an answer, and over many answers of a provider: for changes that no chunk shows.

An answer's score is the mean over its whole chunks of the logarithm of the mean mantissa error. Under the honest model
and under an altered one it is taken as normal; the log-likelihood ratio of each audited answer goes into a cumulative
sum (`toploc.cusum`). Only the simulations need numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

import pydantic
from pydantic import Field

from .errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RANGE: Final = (0.02, 64.0)
"""Mean mantissa errors are held within: 0 has no logarithm, and a chunk without equal exponents has no mean."""

SHARE: Final = 0.1
"""Of the traffic that the alternative takes as altered, if nothing else is said. A test made for a small share loses
little where all is; one made for all of it is slow where a share is, since each honest answer counts against it."""


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=pydantic.ConfigDict(allow_inf_nan=False))
class Scores:
    """How chunk scores of one model are spread: their mean, and their standard deviations between the means of answers
    and between chunks of one answer."""

    mean: float
    between: float = Field(ge=0)
    within: float = Field(gt=0)

    @classmethod
    def fit(cls, answers: Sequence[Sequence[float]]) -> Scores:
        """From the chunk scores of each answer (analysis of variance with unequal groups, Searle, Casella, McCulloch,
        Variance Components, 1992, section 3.6).

        Raises ToplocError for fewer than two answers or no answer of two chunks.
        """
        sizes = [len(scores) for scores in answers]
        if len(sizes) < 2 or max(sizes) < 2 or min(sizes) < 1:
            raise ToplocError("expected scores of at least two answers, of at least one chunk each and one of two")
        means, total, groups = [fmean(scores) for scores in answers], sum(sizes), len(sizes)
        mean = fmean(means, sizes)
        inside = math.fsum((x - m) ** 2 for scores, m in zip(answers, means, strict=True) for x in scores)
        inside /= total - groups
        outside = math.fsum(size * (m - mean) ** 2 for size, m in zip(sizes, means, strict=True)) / (groups - 1)
        weight = (total - sum(size**2 for size in sizes) / total) / (groups - 1)
        return cls(mean, math.sqrt(max(0.0, (outside - inside) / weight)), math.sqrt(max(inside, 1e-6)))

    def deviations(self, score: float, chunks: int) -> float:
        """Standard deviations that the mean score of an answer of so many chunks lies above the mean."""
        return (score - self.mean) / math.sqrt(self.between**2 + self.within**2 / chunks)

    def log_density(self, score: float, chunks: int) -> float:
        """Of the mean score of an answer of so many chunks."""
        variance = self.between**2 + self.within**2 / chunks
        return -0.5 * ((score - self.mean) ** 2 / variance + math.log(2 * math.pi * variance))


@dataclass(frozen=True, slots=True)
class Alternative:
    """What is tested: that all answers are honest, against that a share of them is altered."""

    honest: Scores
    altered: Scores
    share: float = SHARE

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ToplocError(f"share: expected above 0, up to 1, got {self.share}")

    def evidence(self, chunk_scores: Sequence[float]) -> float:
        """The log-likelihood ratio of an answer. Of an honest answer it costs at most log(1 - share)."""
        count, mean = len(chunk_scores), fmean(chunk_scores)
        ratio = self.altered.log_density(mean, count) - self.honest.log_density(mean, count)
        if self.share == 1:
            return ratio
        honest, altered = math.log1p(-self.share), math.log(self.share) + ratio
        return max(honest, altered) + math.log1p(math.exp(-abs(honest - altered)))


def chunk_scores(mantissa_means: Iterable[float]) -> list[float]:
    """Scores of chunks, from the figure `mantissa_mean` of each in a report."""
    return [math.log(min(max(mean, RANGE[0]), RANGE[1])) for mean in mantissa_means]


def threshold(
    honest: Floats, *, answers: int, false_alarm: float = 0.01, simulations: int = 10_000, seed: int = 0
) -> float:
    """A threshold that at most a share `false_alarm` of honest providers reaches within so many audits: the larger of

    1. what is found by simulation: sequences of `honest`, the evidence of honest answers that were not fitted to, drawn
       with replacement;
    2. log(answers / false_alarm), which suffices where scores are as normal as they are taken to be (Lorden, Procedures
       for reacting to a change in distribution, 1971): n answers say nothing of what happens once in more than n.
    """
    if not len(honest) or answers < 1 or not 0 < false_alarm < 1:
        raise ToplocError("expected evidence of honest answers, audits from 1 on, and a false-alarm rate in (0, 1)")
    import numpy as np

    random = np.random.default_rng(seed)
    value, highest = np.zeros(simulations), np.zeros(simulations)
    for _ in range(answers):
        value = np.maximum(0.0, value + random.choice(honest, simulations))
        highest = np.maximum(highest, value)
    simulated = float(np.nextafter(np.quantile(highest, 1 - false_alarm, method="higher"), math.inf))
    return max(simulated, math.log(answers / false_alarm))


def audits_needed(
    honest: Floats,
    altered: Floats,
    *,
    share: float,
    limit: float,
    most: int = 10_000,
    simulations: int = 1000,
    seed: int = 0,
) -> NDArray[np.int64]:
    """After how many audits each of so many simulated providers is found out that alters a share of its answers.

    `most` + 1 where it is not by then. `limit` is the threshold; answers are drawn with replacement.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    value = np.zeros(simulations)
    found = np.full(simulations, most + 1, dtype=np.int64)
    for number in range(1, most + 1):
        drawn = np.where(
            random.random(simulations) < share, random.choice(altered, simulations), random.choice(honest, simulations)
        )
        value = np.maximum(0.0, value + drawn)
        found = np.where((found > most) & (value >= limit), number, found)
        if (found <= most).all():
            break
    return found
