"""Bounds on tokens that are not finer than the numbers that logits are computed in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..thresholds.tokens import TokenBounds
    from ..tokens.scores import TokenScores

DIGITS: Final = {"bfloat16": 7, "float16": 10}
"""Binary digits of a significand, after the first."""


def step_of(logit: float, dtype: str) -> float:
    """From a number of this size to the next in the dtype: 0.125 from 16 to 32 in bfloat16."""
    return math.ldexp(1.0, math.frexp(logit)[1] - 1 - DIGITS[dtype])


def largest_logit(scores: Iterable[TokenScores]) -> float:
    """Of all tokens the farthest from 0 that a likeliest one has; 0 for none."""
    return max((float(abs(one.top).max()) for one in scores if len(one.top)), default=0.0)


def no_finer(bounds: TokenBounds, logit: float, dtype: str) -> TokenBounds:
    """With `near` and `margin` of at least one step of logits of this size, and why.

    Two engines that round one logit to either side are a step apart: a lower `near` counts honest tokens as far.
    """
    step = step_of(logit, dtype)
    if bounds.near >= step and bounds.margin >= step:
        return bounds
    why = f"{bounds.provenance}; raised to {step:g}, the step of {dtype} at logits of {logit:.3g}"
    wider = {"near": max(bounds.near, step), "margin": max(bounds.margin, step), "provenance": why}
    return bounds.model_copy(update=wider)
