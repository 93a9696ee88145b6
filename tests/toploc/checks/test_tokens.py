"""Margins and rates: how far and how many tokens may lie from what the model would say."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np
import pytest

from toploc.checks.tokens import MANY, check_tokens, most_of
from toploc.evidence.evidence import Answer
from toploc.protocol import ChoiceProofs, PromptDigest
from toploc.thresholds.tokens import TokenBounds
from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import POWERS, TokenScores

if TYPE_CHECKING:
    from toploc.report import Check

BOUNDS = TokenBounds(margin=1.0, near=0.25, rate=0.01, support=2.0)


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 8, 100, 1000])
def test_how_many_are_allowed(count: int, rate: float) -> None:
    allowed = most_of(count, rate)
    more = [
        sum(comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(c + 1)) for c in (allowed - 1, allowed)
    ]
    assert allowed == 0 or 1 - more[0] >= MANY
    assert 1 - more[1] < MANY


def test_how_many_are_allowed_of_a_long_answer() -> None:
    assert 1310 < most_of(2**17, 0.01) < 1310 + 5 * 1310**0.5


def judged(distance: np.ndarray, sampling: Sampling, column: str) -> Check:
    count = len(distance)
    columns = dict.fromkeys(("margin", "cut", "surprisal", "entropy", "variance"), np.zeros(count))
    rest = {"best": np.zeros(count, np.int64), "cumulants": np.zeros((count, len(POWERS))), "replay": np.zeros(count)}
    scores = TokenScores(**{**columns, **rest, column: distance})
    answer = Answer(0, "", "stop", ChoiceProofs(index=0, token_ids=(1,) * count, proofs=()), PromptDigest.of([1]))
    return check_tokens(answer, sampling, scores, BOUNDS, decode=lambda _: "x")


@pytest.mark.parametrize(
    ("sampling", "column", "reason"),
    [
        (Sampling(temperature=0), "margin", "margin"),
        (Sampling(seed=3, sampler="murmur3"), "replay", "replay"),
    ],
)
def test_one_far_token_or_several_nearer_ones(sampling: Sampling, column: str, reason: str) -> None:
    allowed = most_of(100, BOUNDS.rate)
    distance = np.zeros(100)
    distance[10 : 10 + allowed] = 0.9
    assert judged(distance, sampling, column).status == "passed"
    distance[50] = 0.3
    check = judged(distance, sampling, column)
    assert (check.status, check.reason) == ("failed", reason)
    far = check.figures["replay_far" if reason == "replay" else "far"]
    assert (far, f"{allowed} allowed" in check.message) == (allowed + 1, True)
    assert judged(np.eye(100)[7] * 1.1, sampling, column).reason == reason
    assert judged(np.full(100, 0.25), sampling, column).status == "passed"


def test_outside_of_what_sampling_leaves() -> None:
    sampling = Sampling(top_k=5)
    assert judged(np.full(100, 2.0), sampling, "cut").status == "passed"
    assert judged(np.eye(100)[7] * 2.1, sampling, "cut").reason == "support"
