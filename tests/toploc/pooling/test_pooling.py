"""The sequential test over answers: its parts by theory, its rates by simulation of fresh sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toploc.errors import ToplocError
from toploc.pooling.alarm import audits_needed, threshold
from toploc.pooling.cusum import Cusum
from toploc.pooling.spread import Alternative, Spread, chunk_scores

HONEST, ALTERED = Spread(-0.8, 0.2, 0.3), Spread(-0.3, 0.2, 0.3)


def draw(scores: Spread, answers: int, seed: int, chunks: int = 4) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    means = random.normal(scores.mean, scores.between, answers)
    return [random.normal(mean, scores.within, int(random.integers(1, 2 * chunks))) for mean in means]


def test_fit_finds_both_deviations() -> None:
    spread = Spread.fit(draw(HONEST, 4000, 1))
    assert spread.mean == pytest.approx(HONEST.mean, abs=0.02)
    assert spread.between == pytest.approx(HONEST.between, abs=0.02)
    assert spread.within == pytest.approx(HONEST.within, abs=0.02)


def test_density_integrates_to_one() -> None:
    grid = np.linspace(-3, 2, 5001)
    density = [math.exp(HONEST.log_density(float(x), 3)) for x in grid]
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-6)


def test_evidence_of_an_honest_answer_costs_at_most_the_share() -> None:
    test = Alternative(HONEST, ALTERED, share=0.25)
    far = np.full(4, -5.0)
    assert test.log_ratio(far) == pytest.approx(math.log(0.75), abs=1e-3)
    at_altered = np.full(4, ALTERED.mean)
    ratio = Alternative(HONEST, ALTERED, share=1).log_ratio(at_altered)
    assert test.log_ratio(at_altered) == pytest.approx(math.log(0.75 + 0.25 * math.exp(ratio)))


def test_cusum_starts_anew_at_zero_and_keeps_its_first_alarm() -> None:
    cusum = Cusum(2.0)
    for evidence in (-5.0, 1.5, -0.5, 1.0, -9.0, 3.0):
        cusum.add(evidence)
    assert (cusum.value, cusum.highest, cusum.answers, cusum.alarm) == (3.0, 3.0, 6, 4)


def test_false_alarms_and_detection_on_fresh_answers() -> None:
    test = Alternative(Spread.fit(draw(HONEST, 500, 2)), Spread.fit(draw(ALTERED, 500, 3)))
    pool = np.array([test.log_ratio(scores) for scores in draw(HONEST, 4000, 4)])
    limit = threshold(pool, answers=200, false_alarm=0.05, simulations=4000)
    alarms = 0
    fresh = np.array([test.log_ratio(scores) for scores in draw(HONEST, 60_000, 5)]).reshape(300, 200)
    for sequence in fresh:
        cusum = Cusum(limit)
        for evidence in sequence:
            cusum.add(float(evidence))
        alarms += cusum.alarm is not None
    # 5 % of 300 are 15; beyond 30 lies one sequence of runs in 10,000.
    assert alarms <= 30
    altered = np.array([test.log_ratio(scores) for scores in draw(ALTERED, 4000, 6)])
    needed = [np.median(audits_needed(pool, altered, share=share, limit=limit)) for share in (1.0, 0.5, 0.1)]
    assert needed == sorted(needed)
    assert needed[0] < 10
    never = audits_needed(pool, pool, share=1.0, limit=1e9, most=50, simulations=10)
    assert (never == 51).all()


def test_few_honest_answers_do_not_lower_the_threshold() -> None:
    assert threshold(np.full(5, -1.0), answers=1000, false_alarm=0.01) == pytest.approx(math.log(100_000))


def test_scores_of_what_a_report_says() -> None:
    scores = chunk_scores([0.0, 1.0, 2.0**64])
    np.testing.assert_allclose(scores, [math.log(0.02), 0.0, math.log(64)])


@pytest.mark.parametrize("answers", [[], [np.zeros(3)], [np.zeros(1), np.zeros(1)], [np.zeros(0), np.zeros(2)]])
def test_too_little_to_fit(answers: list[np.ndarray]) -> None:
    with pytest.raises(ToplocError, match="at least two answers"):
        Spread.fit(answers)


def test_a_share_of_nothing_is_no_alternative() -> None:
    with pytest.raises(ToplocError, match="share"):
        Alternative(HONEST, ALTERED, share=0)
    with pytest.raises(ToplocError, match="false-alarm"):
        threshold(np.zeros(0), answers=10)
