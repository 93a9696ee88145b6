"""What the benchmark of serving makes of its figures."""

from __future__ import annotations

import random

import pytest
from ratios import Goal, Ratio
from spy import summed

RATE, TIME = Goal(0.995, higher_is_better=True, worst=0.98), Goal(1.01)


def ratio(value: float, spread: float, pairs: int = 24) -> Ratio:
    rng = random.Random(0)
    drifts = [rng.uniform(0.8, 1.2) for _ in range(pairs)]
    return Ratio.of([(drift, drift * value * rng.uniform(1 - spread, 1 + spread)) for drift in drifts])


def test_a_drift_that_a_pair_shares_does_not_count() -> None:
    found = Ratio.of([(drift, drift * 1.02) for drift in (1.0, 1.3, 0.7, 1.1)])
    assert (found.value, found.low, found.high) == pytest.approx((1.02, 1.02, 1.02))


def test_the_interval_grows_with_what_a_pair_does_not_share() -> None:
    widths = [found.high - found.low for found in (ratio(1, 0.001), ratio(1, 0.01), ratio(1, 0.1))]
    assert widths == sorted(widths)
    assert widths[0] > 0


@pytest.mark.parametrize(
    ("found", "goal", "verdict"),
    [
        (Ratio(1.0, 0.99, 1.009), TIME, "met"),
        (Ratio(1.0, 0.99, 1.02), TIME, "undecided"),
        (Ratio(1.05, 1.0, 1.1), TIME, "undecided"),
        (Ratio(1.05, 1.02, 1.1), TIME, "missed"),
        (Ratio(0.999, 0.985, 1.01), RATE, "met"),
        (Ratio(0.999, 0.97, 1.01), RATE, "undecided"),
        (Ratio(0.99, 0.985, 1.0), RATE, "undecided"),
        (Ratio(0.96, 0.95, 0.99), RATE, "missed"),
        (Ratio(0.999, 0.9985, 1.01), Goal(0.998, higher_is_better=True), "met"),
        (Ratio(0.999, 0.9, 1.01), Goal(0.998, higher_is_better=True), "undecided"),
    ],
)
def test_a_wide_interval_decides_nothing(found: Ratio, goal: Goal, verdict: str) -> None:
    assert found.verdict(goal) == verdict


def test_frames_of_ours_are_told_from_others() -> None:
    stacks = """\
run (/usr/lib/python3.11/asyncio/runners.py:190);_prove (/srv/site-packages/toploc_proxy/engines/vllm/generate.py:90) 3
run (/usr/lib/python3.11/asyncio/runners.py:190);_prove (/srv/proxy/engines/vllm/generate.py:9);f (/srv/vllm/a.py:2) 5
run (/usr/lib/python3.11/asyncio/runners.py:190);step (/srv/my-toploc-models/serve.py:12) 2
"""
    assert summed(stacks) == "10 samples, in our code 30.00%, _prove 30.00%"
    assert summed("") == "it never held its interpreter"
