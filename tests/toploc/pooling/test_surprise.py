"""Short answers of another writer, none of which shows anything, raise an alarm together; the model's own do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toploc.pooling.surprise import FALSE_ALARM, PooledSurprise
from toploc.tokens.sampling import Sampling
from toploc.tokens.scoring import score_tokens
from toploc.tokens.surprisal import log_ratios, whole_answer

TOKENS = 5


def pooled(answers: int, heat: float, seed: int) -> tuple[PooledSurprise, float]:
    """The test over answers drawn at `heat` times the temperature, and the least chance of any of them alone."""
    rng = np.random.default_rng(seed)
    test, least = PooledSurprise(), 1.0
    logits = rng.normal(size=(answers, TOKENS, 30)) * 2
    chosen = (logits / heat + rng.gumbel(size=logits.shape)).argmax(axis=2)
    for rows, ids in zip(logits, chosen, strict=True):
        scores = score_tokens([torch.from_numpy(rows)], [0], ids.tolist(), Sampling(), [])
        test.add(log_ratios(scores))
        least = min(least, whole_answer(scores, low=heat < 1).chance)
    return test, least


@pytest.mark.parametrize("heat", [0.6, 1.6])
def test_short_answers_at_another_temperature(heat: float) -> None:
    test, least = pooled(150, heat, 1)
    assert test.raised
    assert 1 < test.at <= 150
    assert least > 1e-4


def test_the_models_own_answers() -> None:
    raised = [pooled(30, 1.0, seed)[0] for seed in range(20)]
    assert not any(test.raised for test in raised)
    assert 0 < max(test.highest for test in raised) < raised[0].threshold == pytest.approx(np.log(30 / FALSE_ALARM))


def test_answers_of_other_powers() -> None:
    test = PooledSurprise()
    test.add({"0.5": 0.0})
    with pytest.raises(ValueError, match="log_ratios"):
        test.add({"0.4": 0.0})
