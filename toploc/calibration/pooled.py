"""Bounds on the error of a whole answer, and a sequential test over answers, from honest ones and those of copies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

import numpy as np

from ..engine import Facts
from ..errors import ToplocError
from ..pooling.alarm import audits_needed, threshold
from ..pooling.spread import SHARE, Alternative, Spread, chunk_scores
from ..proofs.channels import channel_error
from ..scheme import CHUNK_SIZE
from ..thresholds.pooled import Copy, PooledBounds
from .bounds import LEAST, TooFewAnswers, upper_bound
from .rate import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..thresholds.bounds import Thresholds
    from ..thresholds.noise import ChannelNoise
    from .samples import Sample

    Floats = NDArray[np.float64]
    Answers = Sequence[tuple[int, list[float]]]

UNNAMED: Final = Facts()
"""Of answers that do not say what computed them."""

AUDITS: Final = 1000
"""Audited answers within which an honest provider is to raise no alarm."""

FALSE_ALARM: Final = 0.01
"""Share of honest providers that raise one within `AUDITS` at most."""

SHARES: Final = (1.0, 0.5, 0.3, 0.1)
"""Of the traffic that is altered, in what `Gain.audits` is about."""

MOST_AUDITS: Final = 5000
"""After which a simulated test ends without an alarm."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What pooling finds of the answers of one writer that nothing was fitted to.

    `refused`: by the bound on an answer. `audits`: for each of `SHARES` the audited answers until the alarm, in the
    median and at 95 %, `MOST_AUDITS` + 1 where it takes more; empty where there is no test against the writer.
    """

    refused: Rate
    audits: tuple[tuple[int, int], ...] = ()


def scores_of(
    samples: Sequence[Sample], thresholds: Thresholds, noise: ChannelNoise | None = None
) -> list[tuple[int, list[float]]]:
    """Scores of the whole chunks of each answer that has any, with the answer's number: by channel where the noise is
    given, else by the mean error."""
    scores: dict[int, list[float]] = {}
    for sample in samples:
        if sample.rows != CHUNK_SIZE:
            continue
        if noise is None:
            [score] = chunk_scores([sample.judge(sample.proof, thresholds).mantissa_mean])
        else:
            score = channel_error(sample.claimed, sample.patterns, sample.indices, noise, thresholds.dtype)
        scores.setdefault(sample.answer, []).append(score)
    return list(scores.items())


def pooled_bounds(
    honest: Answers,
    copies: Mapping[str, Answers],
    *,
    target: float,
    confidence: float,
    provenance: str,
    engine: Facts = UNNAMED,
    noise: ChannelNoise | None = None,
) -> PooledBounds:
    """Everything is fitted to answers of even number, and the alarms' thresholds are set with those of odd number.

    1. The spread of honest scores (`Spread.fit`).
    2. The bound: what a share `target` of honest answers exceeds, in standard deviations, with one-sided `confidence`
       (`upper_bound`).
    3. The spread of each copy's scores, and the threshold of the test against it (`threshold`).

    `noise`: of each channel, where the scores are by that. Raises TooFewAnswers for fewer than `LEAST` answers with a
    whole chunk in either half of the honest, and ToplocError naming the copy that has too few.
    """
    fitted, held = halves(honest)
    if min(len(fitted), len(held)) < LEAST:
        raise TooFewAnswers(
            f"{len(fitted)} and {len(held)} answers with a chunk of {CHUNK_SIZE} tokens, even and odd, of which at "
            f"least {LEAST} each are needed: give more honest answers"
        )
    spread, bound = spread_and_bound(fitted, target=target, confidence=confidence)  # 1, 2
    tests = {}
    for name, answers in copies.items():  # 3
        try:
            altered = Spread.fit(halves(answers)[0])
        except ToplocError as error:
            raise ToplocError(f"{name}: {error}") from None
        test = Alternative(spread, altered, SHARE)
        limit = threshold(log_ratios(held, test), answers=AUDITS, false_alarm=FALSE_ALARM)
        tests[name] = Copy(
            scores=_rounded(altered), threshold=_up(limit), share=SHARE, audits=AUDITS, false_alarm=FALSE_ALARM
        )
    return PooledBounds(
        honest=_rounded(spread),
        noise=noise,
        provenance=provenance,
        bound=max(0.0, _up(bound)),
        copies=tests,
        engine=engine,
    )


def gain(answers: Answers, bounds: PooledBounds, honest: Answers, copy: str = "", confidence: float = 0.95) -> Gain:
    """Of a writer's answers of odd number; `copy` names the test that is to find them."""
    held = halves(answers)[1]
    beyond = deviations(held, bounds.honest) > (math.inf if bounds.bound is None else bounds.bound)
    refused = Rate.of(int(beyond.sum()), len(held), confidence)
    if not copy or not held:
        return Gain(refused)
    test = bounds.alternative(copy)
    fair, altered = (log_ratios(part, test) for part in (halves(honest)[1], held))
    return Gain(refused, audits_to_alarm(fair, altered, bounds.copies[copy].threshold))


def spread_and_bound(fitted: Sequence[Sequence[float]], *, target: float, confidence: float) -> tuple[Spread, float]:
    """How the scores of honest answers are spread, and what a share `target` of them exceeds, in standard deviations,
    with one-sided `confidence`. Raises ToplocError as `Spread.fit` does."""
    spread = Spread.fit(fitted)
    bound = upper_bound(deviations(fitted, spread), np.arange(len(fitted)), share=target, confidence=confidence)
    return spread, bound


def audits_to_alarm(fair: Floats, altered: Floats, limit: float) -> tuple[tuple[int, int], ...]:
    """For each of `SHARES` the audits until a sum of such ratios reaches the limit, as in `Gain.audits`."""
    counts = []
    for share in SHARES:
        needed = audits_needed(fair, altered, share=share, limit=limit, most=MOST_AUDITS)
        middle, late = (int(np.quantile(needed, q, method="higher")) for q in (0.5, 0.95))
        counts.append((middle, late))
    return tuple(counts)


def halves(answers: Answers) -> tuple[list[list[float]], list[list[float]]]:
    """Those of even number, and those of odd."""
    even, odd = ([scores for answer, scores in answers if answer % 2 == which] for which in (0, 1))
    return even, odd


def deviations(answers: Sequence[Sequence[float]], spread: Spread) -> Floats:
    """Of each answer's score, float64[answers]."""
    return np.array([spread.deviations(fmean(scores), len(scores)) for scores in answers])


def log_ratios(answers: Sequence[Sequence[float]], test: Alternative) -> Floats:
    """Log-likelihood ratios, float64[answers]."""
    return np.array([test.log_ratio(scores) for scores in answers])


def _rounded(spread: Spread) -> Spread:
    return Spread(round(spread.mean, 5), round(spread.between, 5), max(round(spread.within, 5), 1e-5))


def _up(value: float) -> float:
    return math.ceil(1000 * value) / 1000
