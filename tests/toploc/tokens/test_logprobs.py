"""Log-probabilities that a response reports, against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toploc.tokens.logprobs import TokenLogprobs, token_logprobs

TOKENS = [int(token) for token in torch.randint(0, 500, (100,), generator=torch.Generator().manual_seed(1))]


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return torch.randn(100, 500, generator=torch.Generator().manual_seed(0)).bfloat16()


def test_the_token_itself_and_the_likeliest(logits: torch.Tensor) -> None:
    found = token_logprobs([logits[:70], logits[70:]], TOKENS, 5)
    expected = logits.float().log_softmax(dim=-1)
    for row, token in enumerate(TOKENS):
        top = expected[row].topk(5)
        assert found.ids[row].tolist() == [token, *top.indices.tolist()]
        assert found.values[row] == pytest.approx([expected[row, token].item(), *top.values.tolist()])
        assert found.ranks[row] == (expected[row] >= expected[row, token]).sum()


def test_given_tokens_and_raw_logits(logits: torch.Tensor) -> None:
    found = token_logprobs([logits], TOKENS, 0, given=[7, 3], raw=True)
    assert found.ids[:, 1:].tolist() == [[7, 3]] * len(TOKENS)
    assert found.values[5].tolist() == logits[5, [TOKENS[5], 7, 3]].tolist()


def test_no_others_and_more_than_there_are(logits: torch.Tensor) -> None:
    assert token_logprobs([logits], TOKENS, 0).ids.shape == (100, 1)
    assert token_logprobs([logits], TOKENS, 1000).ids.shape == (100, 501)


def test_bytes_and_back(logits: torch.Tensor) -> None:
    found = token_logprobs([logits], TOKENS, 3)
    columns = {**found.to_bytes(), **found.to_bytes("prompt_")}
    for prefix in ("", "prompt_"):
        back = TokenLogprobs.from_bytes(columns, prefix)
        assert back is not None
        assert all(np.array_equal(getattr(found, name), getattr(back, name)) for name in ("ids", "values", "ranks"))
    assert TokenLogprobs.from_bytes({}) is None
