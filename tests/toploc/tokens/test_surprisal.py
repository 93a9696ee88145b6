"""The bounds on chances hold for a model's own answers, and what something else wrote within one is found."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import TokenScores
from toploc.tokens.scoring import score_tokens
from toploc.tokens.surprisal import equal_choices, rarest_token, whole_answer, worst_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc.tokens.surprisal import Surprise

VOCABULARY = 50


def answers(
    count: int, tokens: int, sharpness: float, foreign: slice = slice(0, 0), heat: float = 3.0
) -> list[TokenScores]:
    """Tokens drawn from random distributions, the sharper the more certain; those of a slice at another temperature."""
    rng = np.random.default_rng(tokens)
    logits = rng.normal(size=(count, tokens, VOCABULARY)) * sharpness
    noise = rng.gumbel(size=logits.shape)
    drawn = logits + noise
    drawn[:, foreign] = (logits / heat + noise)[:, foreign]
    rows, chosen = torch.from_numpy(logits).flatten(0, 1), drawn.argmax(axis=2).flatten().tolist()
    scores = score_tokens([rows], [1], chosen, Sampling(), [0])
    given = [getattr(scores, field.name) for field in fields(TokenScores)]
    columns = [np.split(column, count) for column in given if column is not None]
    return [TokenScores(*parts) for parts in zip(*columns, strict=True)]


def lower(find: Callable[..., Surprise]) -> Callable[[TokenScores], Surprise]:
    return partial(find, low=True)


@pytest.mark.parametrize("sharpness", [1, 4, 20])
@pytest.mark.parametrize("tokens", [1, 3, 8, 100])
@pytest.mark.parametrize("find", [whole_answer, worst_window, rarest_token, lower(whole_answer), lower(worst_window)])
def test_the_models_own_answers_go_no_more_often_as_far_as_the_bounds_say(
    find: Callable[[TokenScores], Surprise], tokens: int, sharpness: float
) -> None:
    chances = np.array([find(answer).chance for answer in answers(400, tokens, sharpness)])
    for bound in (0.3, 0.1, 0.02):
        # Four standard deviations of a count of 400.
        assert np.mean(chances < bound) <= bound + 4 * (bound * (1 - bound) / 400) ** 0.5


@pytest.mark.parametrize(("heat", "tokens", "bound"), [(0.001, 40, 1e-9), (0.6, 200, 4e-4)])
def test_text_with_less_surprise_than_the_models_own_is_found(heat: float, tokens: int, bound: float) -> None:
    for answer in answers(10, tokens, 1, slice(None), heat):
        low = whole_answer(answer, low=True)
        assert low.chance < bound
        assert low.excess < 0
        assert whole_answer(answer).chance > 0.1


def test_a_part_with_less_surprise_is_found() -> None:
    for answer in answers(10, 1000, 1, slice(300, 360), 0.001):
        window = worst_window(answer, low=True)
        assert window.chance < 1e-6
        assert abs(window.first - 300) <= 10
        assert abs(window.last - 359) <= 10


def test_the_chance_of_a_single_token_is_its_own() -> None:
    logits = torch.tensor([[0.999, 0.0007, 0.0003]]).log()
    scores = [score_tokens([logits], [0], [token], Sampling(), []) for token in range(3)]
    assert [rarest_token(s).chance for s in scores] == pytest.approx([1, 0.001, 0.0003], rel=1e-3)


def test_a_few_unlikely_tokens_have_the_chance_of_all_together() -> None:
    """Of tokens with 100 equal others each in a hundred: no single one is rare, and Chernoff's bound is loose."""
    p = torch.tensor([[0.9, *[0.001] * 100]]).log()
    scores = score_tokens([p.expand(4, -1)], [0], [5, 6, 7, 8], Sampling(), [])
    exact = 0.1**4
    assert exact <= whole_answer(scores).chance < 0.1
    assert rarest_token(scores).chance == pytest.approx(0.4)


def choices(n: int, tokens: int, rng: np.random.Generator, p: np.ndarray) -> tuple[list[list[int]], list[TokenScores]]:
    ids = rng.choice(len(p), size=(n, tokens), p=p).tolist()
    logits = torch.from_numpy(np.log(p)).expand(tokens, -1)
    return ids, [score_tokens([logits], [0], row, Sampling(), []) for row in ids]


def test_choices_are_equal_no_more_often_than_the_bound_says() -> None:
    rng, chances = np.random.default_rng(5), []
    for _ in range(400):
        equal = equal_choices(*choices(4, 6, rng, np.array([0.5, 0.3, 0.15, 0.05])))
        chances.append(1.0 if equal is None else equal.chance)
    assert min(chances) < 0.5
    for bound in (0.3, 0.1, 0.02):
        assert np.mean(np.array(chances) < bound) <= bound + 4 * (bound * (1 - bound) / 400) ** 0.5


@pytest.mark.parametrize("n", [2, 5])
def test_copied_choices_are_found(n: int) -> None:
    rng, p = np.random.default_rng(1), np.full(10, 0.1)
    ids, scores = choices(n, 8, rng, p)
    found = equal_choices(ids, scores)
    assert found is None or found.chance > 0.01
    ids[-1], scores[-1] = [*ids[0][:7], (ids[0][7] + 1) % 10], scores[0]
    found = equal_choices(ids, scores)
    assert found is not None
    assert (found.places, found.tokens) == ((0, n - 1), 7)
    assert found.chance == pytest.approx((n - 1) * n * (n - 1) / 2 * 1e-7, rel=1e-3)


def test_many_copies_of_a_likely_answer_are_found() -> None:
    """Two would be nothing."""
    ids, scores = choices(2, 1, np.random.default_rng(1), np.array([1.0]))
    half = torch.tensor([[0.5, 0.5]]).log()
    scores = [score_tokens([half], [0], [0], Sampling(), [])] * 64
    found = equal_choices([[0]] * 64, scores)
    assert found is not None
    assert found.chance == pytest.approx(63 * 0.5**63, rel=1e-3)
    assert equal_choices(ids, scores[:2]).chance == pytest.approx(0.5)


def test_a_part_by_another_writer_is_found_where_the_whole_does_not_show_it() -> None:
    altered = answers(10, 1000, 4, slice(300, 330))
    windows = [worst_window(a) for a in altered]
    assert all(window.chance < 1e-6 for window in windows)
    assert all(abs(window.first - 300) <= 10 and abs(window.last - 329) <= 10 for window in windows)
    assert sum(whole_answer(a).z < 3.29 for a in altered) >= 5
