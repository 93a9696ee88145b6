"""No bound on tokens is finer than the numbers that logits come in."""

from __future__ import annotations

import pytest
import torch

from toploc.calibration.step import largest_logit, no_finer, step_of
from toploc.thresholds.tokens import TokenBounds
from toploc.tokens.sampling import Sampling
from toploc.tokens.scoring import score_tokens


@pytest.mark.parametrize("logit", [0.3, 1.0, 7.9, 8.0, 16.0, 31.9, -20.0, 100.0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_is_what_the_next_number_is_off(logit: float, dtype: str) -> None:
    kind = getattr(torch, dtype)
    number = torch.tensor(logit).to(kind)
    following = torch.nextafter(number, torch.tensor(torch.inf * (1 if logit > 0 else -1)).to(kind))
    assert step_of(float(number), dtype) == abs(float(following) - float(number))


def test_the_size_of_logits_is_known_from_the_scores() -> None:
    logits = torch.tensor([[1.0, -40.0, 17.5, 3.0], [2.0, 0.0, 1.0, -5.0]])
    for options in ({"temperature": 0.0}, {}, {"top_k": 2, "temperature": 0.5}):
        scores = score_tokens([logits], [0], [2, 0], Sampling(**options), [])
        assert scores.top.tolist() == [17.5, 2.0]
        assert largest_logit([scores]) == 17.5
    assert largest_logit([]) == 0


def test_near_is_a_step_at_least() -> None:
    fine = TokenBounds(near=0.05, margin=0.06, provenance="measured")
    raised = no_finer(fine, 17.5, "bfloat16")
    assert (raised.near, raised.margin) == (0.125, 0.125)
    assert raised.provenance == "measured; raised to 0.125, the step of bfloat16 at logits of 17.5"
    assert raised.rate == fine.rate
    enough = TokenBounds(near=0.126, margin=0.5)
    assert no_finer(enough, 17.5, "bfloat16") is enough
    assert no_finer(enough, 40.0, "bfloat16").near == 0.25
