"""Scores of tokens as a table and as bytes, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import COLUMNS, POWERS, TokenScores
from toploc.tokens.scoring import score_tokens


def scores_of(**options: float) -> TokenScores:
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(1))
    return score_tokens([logits], [0], [3, 1, 4, 1, 5], Sampling(sampler="philox", **options), [])


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"seed": 7}])
def test_bytes_and_back(options: dict[str, float]) -> None:
    scores = scores_of(**options)
    same = TokenScores.from_bytes(scores.to_bytes())
    for name in COLUMNS:
        column = getattr(scores, name)
        assert (column is None) == (name == "replay" and "seed" not in options)
        if column is not None:
            np.testing.assert_array_equal(getattr(same, name), column, strict=True, err_msg=name)


def test_a_table_has_columns_in_order() -> None:
    numbers = np.arange(8.0 + len(POWERS) + 1)
    scores = TokenScores.from_table(np.stack([numbers, numbers]))
    assert [scores.margin[1], scores.best[1], scores.cut[1], scores.surprisal[1]] == [0, 1, 2, 3]
    assert [scores.entropy[1], scores.variance[1], scores.tail[1], scores.top[1]] == [4, 5, 6, 7]
    assert scores.cumulants[1].tolist() == list(range(8, 8 + len(POWERS)))
    assert scores.replay is not None
    assert scores.replay[1] == numbers[-1]
    assert TokenScores.from_table(np.stack([numbers, numbers])[:, :-1]).replay is None
