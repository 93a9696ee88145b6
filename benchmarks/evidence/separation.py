"""Statistics of chunks and answers, and how well they separate two samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from figures import EDGES, NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ERROR = 0.01
MOST_CHUNKS = 4096
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of chunks, float64[answers, chunks, figures]."""

    figures: Floats
    places: NDArray[np.int64]
    """Number of each answer within its row."""

    @classmethod
    def of(cls, rows: list[list[list[list[float]]]]) -> Sample:
        """Of the answers of several rows, each of as many chunks."""
        places = np.concatenate([np.arange(len(row)) for row in rows])
        return cls(np.array([answer for row in rows for answer in row], dtype=np.float64), places)

    def __getitem__(self, name: str) -> Floats:
        """One figure of each chunk."""
        return self.figures[..., NAMES.index(name)]

    @property
    def classes(self) -> Floats:
        return self.figures[..., len(NAMES) :]

    def half(self, which: int) -> Sample:
        """Four answers of each eight. Kinds of questions alternate by two and by four (`questions.py`), so that even
        and odd ones would differ in their prompts."""
        chosen = self.places // 4 % 2 == which
        return Sample(self.figures[chosen], self.places[chosen])

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Of each chunk, whether it is beyond the paper's bounds."""
        return self["passed"] == 0


def beyond_paper(sample: Sample) -> Floats:
    """How near a chunk is to failing the paper's bounds: the largest of its figures as a share of its bound."""
    return np.maximum.reduce([sample["mismatches"] / 38, sample["mantissa_mean"] / 10, sample["mantissa_median"] / 8])


def log_mean(sample: Sample) -> Floats:
    """Logarithm of the mean mantissa error, which is nearly normal; a chunk without equal exponents counts as 64."""
    return np.log(np.clip(sample["mantissa_mean"], 0.02, 64.0))


def signed(sample: Sample) -> Floats:
    """The mean signed distance, as a distance from 0."""
    inner = (EDGES[1:] + EDGES[:-1] - 1) / 2
    middles = np.concatenate((-np.append(inner, 40.0)[::-1], [0.0], inner, [40.0]))
    total: Floats = np.abs((sample.classes * middles).sum(-1) / sample.classes.sum(-1))
    return total


@dataclass(frozen=True, slots=True)
class JointLikelihood:
    """Log-likelihood ratio of a chunk's points, each in its class of signed distance; fitted to two samples."""

    weights: Floats

    @classmethod
    def fit(cls, honest: Sample, altered: Sample) -> JointLikelihood:
        counts = [sample.classes.sum((0, 1)) + 0.5 for sample in (honest, altered)]
        return cls(np.log(counts[1] / counts[1].sum()) - np.log(counts[0] / counts[0].sum()))

    def __call__(self, sample: Sample) -> Floats:
        total: Floats = (sample.classes * self.weights).sum(-1)
        return total


def area(honest: Floats, altered: Floats) -> float:
    """Under the receiver operating characteristic: the chance that an altered one is higher, ties counting half."""
    ordered = np.sort(honest.ravel())
    below = np.searchsorted(ordered, altered.ravel(), "left") + np.searchsorted(ordered, altered.ravel(), "right")
    return float(below.mean() / 2 / ordered.size)


def chunks_needed(honest: Floats, altered: Floats, seed: int = 0) -> int | None:
    """The least number of chunks, of different answers, whose mean separates the two with at most 1 % of errors either
    way; None above `MOST_CHUNKS`. Arrays are [answers, chunks]; chunks are drawn with replacement."""
    rng = np.random.default_rng(seed)
    low, high = honest.ravel(), altered.ravel()

    def enough(count: int) -> bool:
        means = [_means(values, count, rng) for values in (low, high)]
        return bool(np.quantile(means[0], 1 - ERROR) < np.quantile(means[1], ERROR))

    count = 1
    while not enough(count):
        count *= 2
        if count > MOST_CHUNKS:
            return None
    if count < 4:
        return count
    least, most = count // 2, count
    while most - least > max(1, most // 32):
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most


def _means(values: Floats, count: int, rng: np.random.Generator) -> Floats:
    total = np.zeros(DRAWS)
    for first in range(0, count, 256):
        size = min(256, count - first)
        total += values[rng.integers(values.size, size=(DRAWS, size))].sum(1)
    means: Floats = total / count
    return means
