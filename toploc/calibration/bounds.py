"""Bounds on a chunk's figures from honest answers of one model, and what they refuse.

Bounds come from every second answer, false alarms are counted on the others, and nothing is fitted to altered copies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import ToplocError
from ..scheme import TOPK
from ..thresholds.bounds import Bounds
from .rate import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..thresholds.bounds import Thresholds
    from .samples import Sample

ROWS: Final = (1, 2, 4, 8, 32)
"""The fewer rows, the noisier the figures (docs/evidence.md): a chunk's bounds are those of the largest entry that it
reaches."""

LEAST: Final = 20
"""Chunks of a length from which bounds are taken: below, the tail is a single chunk."""

TAIL: Final = 0.1
"""Share of the values that the tail has at most."""

EXCESSES: Final = 50
"""Values that the tail has at most, if that is less."""

RESAMPLES: Final = 500
"""Of whole answers, for the confidence of a bound."""

FIGURES: Final = {"mismatches": 1.0, "mantissa_mean": 0.0, "mantissa_median": 1.0}
"""The figures that are calibrated, and what each rises by at least, where it is a whole number."""


class TooFewAnswers(ToplocError):
    """Fewer honest chunks of some length than bounds can be taken from."""


def bounds_of(samples: Sequence[Sample], thresholds: Thresholds, *, target: float, confidence: float) -> list[Bounds]:
    """Bounds that a share `target` of honest chunks of each length exceeds, with one-sided `confidence`.

    `thresholds` are of the samples' dtype and top-k. Raises TooFewAnswers for fewer than `LEAST` chunks of a length.
    """
    bounds = []
    for rows in ROWS:
        chosen = [sample for sample in samples if group(sample.rows) == rows]
        if len(chosen) < LEAST:
            raise TooFewAnswers(
                f"{len(chosen)} chunks of {span(rows)} to take bounds from, at least {LEAST} are needed: "
                "give more honest answers, of more lengths"
            )
        verdicts = [sample.judge(sample.proof, thresholds) for sample in chosen]
        figures = {name: np.array([getattr(verdict, name) for verdict in verdicts], float) for name in FIGURES}
        answers = np.array([sample.answer for sample in chosen])
        bounds.append(bounds_from(rows, figures, answers, target=target, confidence=confidence))
    return bounds


def bounds_from(
    rows: int,
    figures: Mapping[str, NDArray[np.float64]],
    answers: NDArray[np.int64],
    *,
    target: float,
    confidence: float,
) -> Bounds:
    """Of chunks of one length: each of `FIGURES` as float64[n], and the answer of each, int64[n].

    1. Each of the three figures has a third of the target (Bonferroni).
    2. `upper_bound` of each figure; whole numbers are rounded up.
    """
    share = target / len(FIGURES)  # 1
    largest = {  # 2
        name: upper_bound(figures[name], answers, share=share, confidence=confidence, step=step)
        for name, step in FIGURES.items()
    }
    return Bounds(
        rows=rows,
        mismatches=min(math.ceil(largest["mismatches"]), TOPK),
        mantissa_mean=math.ceil(100 * largest["mantissa_mean"]) / 100,
        mantissa_median=float(math.ceil(largest["mantissa_median"])),
    )


def upper_bound(
    values: NDArray[np.float64], answers: NDArray[np.int64], *, share: float, confidence: float, step: float = 0.0
) -> float:
    """What a share of values exceeds at most, with one-sided confidence: float64[n], and the answer of each, int64[n].

    1. The largest tenth of the values, but at most 50, is taken as an exponential tail: the value that a share p
       exceeds is u + s ln(p_u / p), u where the tail begins, s the mean excess and p_u the share above u (peaks over
       threshold, Pickands 1975, with shape 0). One excess of `step` is added to those seen, so that counts that are
       nearly all alike leave room. Beyond 1/n this is extrapolation, too low where the tail is heavier.
    2. The confidence is the quantile of it over resamples of whole answers (Efron 1979), since chunks of an answer are
       not independent.
    3. It is not below the largest value seen.
    """
    random = np.random.default_rng(0)
    _, inverse = np.unique(answers, return_inverse=True)
    total = int(inverse.max()) + 1
    resampled = []
    for _ in range(RESAMPLES):
        weights = np.bincount(random.integers(total, size=total), minlength=total)
        resampled.append(_exceeded_by(np.repeat(values, weights[inverse]), share, step))  # 1
    return float(max(np.quantile(resampled, confidence), values.max()))  # 2, 3


def _exceeded_by(values: NDArray[np.float64], share: float, step: float) -> float:
    u = float(np.quantile(values, max(1 - TAIL, 1 - EXCESSES / len(values)), method="higher"))
    excess = values[values > u] - u
    scale = (float(excess.sum()) + step) / (len(excess) + 1 if step else max(len(excess), 1))
    above = (len(excess) + 1) / (len(values) + 1)
    return u + scale * max(math.log(above / share), 0.0)


def group(rows: int) -> int:
    """The entry of `ROWS` that a chunk of so many rows belongs to."""
    return max(least for least in ROWS if least <= rows)


def span(rows: int) -> str:
    """An entry of `ROWS` in words."""
    following = [other for other in ROWS if other > rows]
    last = min(following) - 1 if following else rows
    return f"{rows} to {last} rows" if last > rows else f"{rows} row{'s' if rows > 1 else ''}"


def refused_chunks(samples: Sequence[Sample], thresholds: Thresholds, confidence: float = 0.95) -> Rate:
    """Chunks whose own proofs the thresholds refuse: of honest ones, false alarms."""
    return Rate.of(sum(not sample.passes(thresholds) for sample in samples), len(samples), confidence)


def refused_answers(samples: Sequence[Sample], thresholds: Thresholds, confidence: float = 0.95) -> Rate:
    """Answers of which the thresholds refuse a chunk."""
    answers = {sample.answer for sample in samples}
    refused = {sample.answer for sample in samples if not sample.passes(thresholds)}
    return Rate.of(len(refused), len(answers), confidence)
