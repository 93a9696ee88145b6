"""How far a token lies outside of what sampling leaves: as far as logits would have to differ for it to be within."""

from __future__ import annotations

import pytest
import torch

from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import FARTHEST, TokenScores
from toploc.tokens.scoring import score_tokens


def scored(probabilities: list[float], token: int, **options: float) -> TokenScores:
    logits = torch.tensor([probabilities]).log()
    return score_tokens([logits], [0], [token], Sampling(**options), [])


@pytest.mark.parametrize(
    ("options", "token", "cut"),
    [
        ({"top_k": 2}, 2, 0.6931),  # 0.1 against 0.2
        ({"min_p": 0.5}, 2, 1.2040),  # 0.1 against half of 0.6666
        ({"top_p": 0.6}, 1, 0.2874),  # 2 to 1 against 1.5 to 1: an unlikely token, but nearly within
        ({"top_p": 0.6666}, 1, 0.0001),
        ({"top_p": 0.6, "temperature": 0.5}, 1, 0.8785),  # 8.7 to 1, and half of the logarithm
        ({"top_k": 2, "top_p": 0.9}, 2, 0.6931),  # the second is within both, so the third lacks its place alone
        ({"top_k": 2, "top_p": 0.9}, 1, 0),
        ({}, 3, 0),
    ],
)
def test_tokens_outside(options: dict[str, float], token: int, cut: float) -> None:
    assert scored([0.6666, 0.2, 0.1, 0.0334], token, **options).cut[0] == pytest.approx(cut, abs=2e-4)


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.01}, {"seed": 3}])
def test_a_token_that_is_forbidden_is_farthest(options: dict[str, float]) -> None:
    """The end of an answer before `min_tokens`."""
    sampling = Sampling(min_tokens=5, sampler="murmur3", **options)
    scores = score_tokens([torch.zeros(1, 8)], [0], [7], sampling, [7])
    assert scores.cut[0] == FARTHEST
    assert scores.replay is None or scores.replay[0] == FARTHEST


@pytest.mark.parametrize(
    ("options", "token", "tail"),
    [
        ({}, 0, 1),
        ({}, 1, 0.3334),
        ({}, 3, 0.0334),
        ({"top_k": 2}, 1, 0.2 / 0.8666),
        ({"top_k": 2}, 3, 0.2 / 0.8666),  # outside: as the least likely within
        ({"temperature": 0.5}, 1, 0.0511 / 0.4955),
    ],
)
def test_the_probability_of_all_tokens_that_are_no_likelier(options: dict[str, float], token: int, tail: float) -> None:
    assert scored([0.6666, 0.2, 0.1, 0.0334], token, **options).tail[0] == pytest.approx(tail, abs=2e-4)


def test_equally_likely_tokens_share_their_tail() -> None:
    assert [scored([0.4, 0.3, 0.3], token).tail[0] for token in range(3)] == pytest.approx([1, 0.6, 0.6])
