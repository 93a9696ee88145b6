"""Error pooled over the chunks of an answer, and over many answers of a provider: for changes that no chunk shows.

An answer's score is the mean over its whole chunks of the logarithm of the mean mantissa error. Under the honest model
and under an altered one it is taken as normal; the log-likelihood ratio of each audited answer goes into a cumulative
sum (`toploc.pooling.cusum`). Only the simulations need numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

import pydantic
from pydantic import Field

from ..errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RANGE: Final = (0.02, 64.0)
"""Mean mantissa errors are held within: 0 has no logarithm, and a chunk without equal exponents has no mean."""

SHARE: Final = 0.1
"""Of the traffic that the alternative takes as altered, if nothing else is said. A test made for a small share loses
little where all is; one made for all of it is slow where a share is, since each honest answer counts against it."""


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=pydantic.ConfigDict(allow_inf_nan=False))
class Spread:
    """Of the chunk scores of one model: their mean, and their standard deviations between the means of answers
    and between chunks of one answer."""

    mean: float
    between: float = Field(ge=0)
    within: float = Field(gt=0)

    @classmethod
    def fit(cls, answers: Sequence[Sequence[float]]) -> Spread:
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

    honest: Spread
    altered: Spread
    share: float = SHARE

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ToplocError(f"share: expected above 0, up to 1, got {self.share}")

    def log_ratio(self, chunk_scores: Sequence[float]) -> float:
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
