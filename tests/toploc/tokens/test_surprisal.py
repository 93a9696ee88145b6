"""The bounds on chances hold for a model's own answers, and what something else wrote within one is found."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import TokenScores
from toploc.tokens.scoring import score_tokens
from toploc.tokens.surprisal import whole_answer, worst_window

VOCABULARY = 50


def answers(count: int, tokens: int, sharpness: float, foreign: slice = slice(0, 0)) -> list[TokenScores]:
    """Tokens drawn from random distributions, the sharper the more certain; those of a slice from flatter ones."""
    rng = np.random.default_rng(tokens)
    logits = rng.normal(size=(count, tokens, VOCABULARY)) * sharpness
    noise = rng.gumbel(size=logits.shape)
    drawn = logits + noise
    drawn[:, foreign] = (logits / 3 + noise)[:, foreign]
    rows, chosen = torch.from_numpy(logits).flatten(0, 1), drawn.argmax(axis=2).flatten().tolist()
    scores = score_tokens([rows], [1], chosen, Sampling(), [0])
    given = [getattr(scores, field.name) for field in fields(TokenScores)]
    columns = [np.split(column, count) for column in given if column is not None]
    return [TokenScores(*parts) for parts in zip(*columns, strict=True)]


@pytest.mark.parametrize("sharpness", [1, 4, 20])
@pytest.mark.parametrize("tokens", [1, 8, 100])
def test_the_models_own_answers_are_no_more_often_surprising_than_the_bounds_say(tokens: int, sharpness: float) -> None:
    honest = answers(400, tokens, sharpness)
    for chances in ([whole_answer(a).chance for a in honest], [worst_window(a).chance for a in honest]):
        for bound in (0.3, 0.1):
            # Four standard deviations of a count of 400.
            assert np.mean(np.array(chances) < bound) <= bound + 4 * (bound * (1 - bound) / 400) ** 0.5


def test_a_part_by_another_writer_is_found_where_the_whole_does_not_show_it() -> None:
    altered = answers(10, 1000, 4, slice(300, 330))
    windows = [worst_window(a) for a in altered]
    assert all(window.chance < 1e-6 for window in windows)
    assert all(abs(window.first - 300) <= 10 and abs(window.last - 329) <= 10 for window in windows)
    assert sum(whole_answer(a).z < 3.29 for a in altered) >= 5
