"""Margins and rates: how far and how many tokens may lie from what the model would say."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from toploc.checks.tokens import MANY, check_equal_choices, check_tokens, most_of
from toploc.evidence.evidence import Answer
from toploc.protocol import ChoiceProofs, PromptDigest
from toploc.thresholds.tokens import TokenBounds
from toploc.tokens.masks import Constraint, Forbidden
from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import POWERS, TokenScores
from toploc.tokens.scoring import score_tokens

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


def answer_of(token_ids: tuple[int, ...], index: int = 0) -> Answer:
    made = ChoiceProofs(index=index, token_ids=token_ids, proofs=())
    return Answer(index, "", "stop", made, PromptDigest.of([1]))


def judged(distance: np.ndarray, sampling: Sampling, column: str) -> Check:
    count = len(distance)
    columns = dict.fromkeys(("margin", "top", "cut", "surprisal", "entropy", "variance"), np.zeros(count))
    rest = {"best": np.zeros(count, np.int64), "cumulants": np.zeros((count, len(POWERS))), "replay": np.zeros(count)}
    scores = TokenScores(**{**columns, "tail": np.ones(count), **rest, column: distance})
    return check_tokens(answer_of((1,) * count), sampling, scores, BOUNDS, decode=lambda _: "x")


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
    sampling = Sampling(top_k=5, seed=3, sampler="murmur3")
    allowed = most_of(100, BOUNDS.outside)
    distance = np.zeros(100)
    distance[10 : 10 + allowed] = 2.0
    assert judged(distance, sampling, "cut").status == "passed"
    distance[50] = 0.01
    check = judged(distance, sampling, "cut")
    assert (check.status, check.reason, check.figures["far"]) == ("failed", "support", allowed + 1)
    assert judged(np.eye(100)[7] * 2.1, sampling, "cut").reason == "support"


def drawn(chosen: list[int], probabilities: list[float], sampling: Sampling) -> tuple[Answer, Sampling, TokenScores]:
    logits = torch.tensor([probabilities]).log().expand(len(chosen), -1)
    return answer_of(tuple(chosen)), sampling, score_tokens([logits], [1], chosen, sampling, [])


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (5, "was not measured below 8 tokens"),
        (40, "of answers of 32 tokens this finds"),
        (300, "answers of 256 tokens"),
    ],
)
def test_nothing_found_without_a_seed_is_weak(count: int, words: str) -> None:
    check = check_tokens(*drawn([0] * count, [1.0, 0.0], Sampling()), BOUNDS, decode=lambda _: "x")
    assert (check.status, check.reason) == ("weak", "unseeded")
    assert words in check.message


def test_greedy_text_for_sampled() -> None:
    """As at a high temperature, where the model would not say its likeliest token again and again."""
    check = check_tokens(*drawn([0] * 64, [0.4, 0.3, 0.3], Sampling(temperature=1.5)), BOUNDS, decode=lambda _: "x")
    assert (check.status, check.reason) == ("failed", "unsurprising")
    assert "nats less surprising than the model's own" in check.message


def test_one_rare_token() -> None:
    check = check_tokens(*drawn([1], [0.9999, 0.0001], Sampling()), BOUNDS, decode=lambda _: "x")
    assert check.status == "failed"
    assert check.figures["token_chance"] == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize(
    ("sampling", "found"),
    [(Sampling(), True), (Sampling(temperature=0), False), (Sampling(top_k=1), False), (Sampling(top_p=0.5), False)],
)
def test_equal_choices_of_a_sampled_answer(sampling: Sampling, found: bool) -> None:
    """Where the options leave one token they are equal, and no wonder."""
    said = [0, 1, 2] * 6 if found else [0] * 18
    one = drawn(said, [0.6, 0.2, 0.2], sampling)
    two = (answer_of(tuple(said), 1), *one[1:])
    check = check_equal_choices([one, two], BOUNDS)
    assert (check is not None) == found
    assert check_equal_choices([one], BOUNDS) is None
    if check is not None:
        assert (check.status, check.reason, check.choice) == ("failed", "equal_choices", None)
        assert (check.figures["choices"], check.figures["equal_tokens"]) == ([0, 1], 18)


def test_a_forbidden_token_needs_no_logits() -> None:
    found = check_tokens(
        answer_of((3, 4)),
        Sampling(),
        None,
        BOUNDS,
        decode=lambda ids: f"<{ids[0]}>",
        constraint=Constraint(forbidden=Forbidden(1, "structured_outputs")),
    )
    assert (found.status, found.reason) == ("failed", "forbidden")
    assert found.message == 'token 1, "<4>", is none that structured_outputs leaves there'
    assert (found.figures["place"], found.figures["option"]) == (1, "structured_outputs")


def test_what_cannot_be_followed_is_undecided() -> None:
    constraint = Constraint(problem="the grammar does not compile")
    found = check_tokens(answer_of((3, 4)), Sampling(), None, BOUNDS, decode=lambda _: "", constraint=constraint)
    assert (found.status, found.reason) == ("undecided", "constraint")


def test_processors_of_logits_may_allow_what_a_grammar_forbids() -> None:
    constraint = Constraint(forbidden=Forbidden(0, "bad_words"))
    sampling = Sampling(other=("a_processor",))
    found = check_tokens(answer_of((3,)), sampling, None, BOUNDS, decode=lambda _: "", constraint=constraint)
    assert (found.status, found.reason) == ("skipped", "options")
