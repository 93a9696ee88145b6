"""The statistics of a calibration, against closed forms and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toploc import Thresholds
from toploc.calibration.bounds import LEAST, TooFewAnswers, bounds_of, upper_bound
from toploc.calibration.impostors import impostors
from toploc.calibration.rate import Rate
from toploc.calibration.samples import Sample
from toploc.checks.proofs import MOST_IMPOSTORS
from toploc.proofs.format import Proof, encode_points
from toploc.proofs.topk import top_k

PAPER = Thresholds.paper()


@pytest.mark.parametrize("total", [1, 80, 1152])
def test_an_interval_of_nothing_found_has_a_closed_form(total: int) -> None:
    """(1 - p)^n = alpha / 2."""
    rate = Rate.of(0, total, 0.95)
    assert (rate.low, rate.high) == (0, pytest.approx(1 - 0.025 ** (1 / total)))
    rate = Rate.of(total, total, 0.95)
    assert (rate.low, rate.high) == (pytest.approx(0.025 ** (1 / total)), 1)
    assert Rate.of(0, 0, 0.95) == Rate(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"), [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (1, 29, 0.0009, 0.1776)]
)
def test_published_intervals(count: int, total: int, low: float, high: float) -> None:
    """Table I of Newcombe 1998, Statistics in Medicine 17, method 5."""
    rate = Rate.of(count, total, 0.95)
    assert (rate.low, rate.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_a_bound_has_its_confidence() -> None:
    """Of values whose tail is exponential, P(X > b) = exp(-b): the share of fits that stay within the target, for
    independent values and for answers whose three values are the same."""
    random = np.random.default_rng(1)
    share, fits = 1e-4, 60
    for per_answer in (1, 3):
        answers = np.repeat(np.arange(300), per_answer)
        within = 0
        for _ in range(fits):
            values = np.repeat(random.exponential(size=300), per_answer)
            within += math.exp(-upper_bound(values, answers, share=share, confidence=0.95)) <= share
        # 95 % of 60 is 57; fewer than 51 has a chance below 1 in 1,000. The bootstrap is approximate.
        assert within >= 51


def test_a_bound_is_not_below_what_was_seen() -> None:
    values = np.array([*np.linspace(0, 1, 99), 50.0])
    assert upper_bound(values, np.arange(100), share=0.5, confidence=0.9) == 50


def _samples(outliers: int, noise: float) -> list[Sample]:
    """Random activations [rows, 256], and the same with relative noise as the verifier's; the last chunk of each
    answer has another length. The first channels may be large and nearly constant."""
    random = np.random.default_rng(2)

    def points(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return top_k((values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(-1), 128)

    samples = []
    for answer in range(60):
        for rows in (1, 2, 4, 9, 32):
            values = random.standard_normal((rows, 256))
            values[:, :outliers] = 20 * (1 + 0.02 * random.standard_normal((rows, outliers)))
            noisy = values * (1 + noise * random.standard_normal(values.shape))
            samples.append(Sample(answer, f"{answer}", rows, Proof(encode_points(*points(values))), *points(noisy)))
    return samples


@pytest.mark.parametrize(("outliers", "noise"), [(0, 0.01), (4, 0.03)])
def test_impostors(outliers: int, noise: float) -> None:
    """Where channels that vary less than two engines differ make up the top-k, proofs do not tell answers apart."""
    samples = _samples(outliers, noise)
    fitted = bounds_of(samples, PAPER, target=1e-4, confidence=0.95)
    thresholds = Thresholds("x", "bfloat16", 128, "a test", tuple(fitted))
    rates = impostors([sample for sample in samples if sample.rows == 32], thresholds, 0.95)
    assert all(rate.total == 2000 for rate in rates.values())
    if outliers:
        assert rates["other answers"].share > MOST_IMPOSTORS
        assert rates["usual places"].share > MOST_IMPOSTORS
    else:
        assert sum(rate.count for rate in rates.values()) == 0


def test_too_few_answers() -> None:
    samples = [sample for sample in _samples(0, 0.01) if sample.rows != 9 or sample.answer < LEAST - 1]
    with pytest.raises(TooFewAnswers, match="19 chunks of 8 to 31 rows"):
        bounds_of(samples, PAPER, target=1e-4, confidence=0.95)
