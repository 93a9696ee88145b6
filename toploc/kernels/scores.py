"""The figures of `toploc.tokens.scoring` for logits that no option changes, on a GPU: read twice, and written nowhere.

Every intermediate of the general way is as large as the logits themselves, and there are dozens. Here a program takes a
row: the first pass finds its largest logit, the second sums up what entropy, variance and cumulants are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK: Final = 4096
"""Logits that the first pass looks at in one go."""

POWERS_BLOCK: Final = 512
"""Of the second pass, which has 16 powers of each."""

PLACES: Final = 16
"""Exponents 1 - λ; the last places have λ = 0, which gives the sum of the probabilities themselves."""


@triton.jit
def _sum_rows(  # type: ignore[no-untyped-def]
    logits,
    chosen,
    exponents,
    best,
    sums,
    vocabulary,
    stride,
    inverse,
    greedy: tl.constexpr,
    block: tl.constexpr,
    powers_block: tl.constexpr,
):
    """Of each row: max, chosen logit, least finite logit, sum p d, sum p d², sum exp(e d) for each exponent e, sum p
    of logits no larger than the chosen one, or than the least where that is infinite; with d = (logit - max) /
    temperature, unnormalised."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    lanes = tl.arange(0, block)
    top = tl.full((block,), -float("inf"), tl.float32)
    least = tl.full((block,), float("inf"), tl.float32)
    place = tl.full((block,), 2147483647, tl.int32)
    for start in range(0, vocabulary, block):
        column = start + lanes
        value = tl.load(logits + column, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
        place = tl.where(value > top, column, place)
        top = tl.maximum(top, value)
        least = tl.minimum(least, tl.where(value == -float("inf"), float("inf"), value))
    largest = tl.max(top)
    tl.store(best + row, tl.min(tl.where(top == largest, place, 2147483647)))
    sums += row * 22
    own = tl.load(logits + tl.load(chosen + row)).to(tl.float32)
    lowest = tl.min(least)
    tl.store(sums, largest)
    tl.store(sums + 1, own)
    tl.store(sums + 2, lowest)
    if not greedy:
        border = tl.maximum(own, lowest)
        tail = tl.zeros((powers_block,), tl.float32)
        which = tl.arange(0, 16)
        exponent = tl.load(exponents + which)
        powers = tl.zeros((16,), tl.float32)
        first = tl.zeros((powers_block,), tl.float32)
        second = tl.zeros((powers_block,), tl.float32)
        for start in range(0, vocabulary, powers_block):
            column = start + tl.arange(0, powers_block)
            value = tl.load(logits + column, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
            finite = value > -float("inf")
            distance = tl.where(finite, (value - largest) * inverse, 0.0)
            weight = tl.where(finite, tl.exp(distance), 0.0)
            first += weight * distance
            second += weight * distance * distance
            tail += tl.where(value <= border, weight, 0.0)
            raised = tl.where(finite[:, None], tl.exp(distance[:, None] * exponent[None, :]), 0.0)
            powers += tl.sum(raised, axis=0)
        tl.store(sums + 3, tl.sum(first))
        tl.store(sums + 4, tl.sum(second))
        tl.store(sums + 5 + which, powers)
        tl.store(sums + 21, tl.sum(tail))


def plain_figures(
    logits: torch.Tensor,
    chosen: torch.Tensor,
    *,
    divisor: float,
    greedy: bool,
    powers: Sequence[float],
    farthest: float,
) -> dict[str, torch.Tensor]:
    """The columns of `toploc.tokens.scores.TokenScores` by name, without `replay`: float64 [rows], `cumulants` float64
    [rows, len(powers)].

    As `scoring._figures` gives them where no truncation, bias or penalty changes the logits.

    Args:
        logits: [rows, vocabulary] on a GPU, any floating-point type; rows may be apart.
        chosen: each row's token, int64 [rows].
        divisor: what logits are divided by, the temperature; 1 where greedy.
        greedy: whether margins alone are wanted; the rest is 0.
        powers: the λ of the cumulants, fewer than `PLACES`.
        farthest: what stands for an infinite margin.
    """
    rows, vocabulary = logits.shape
    best = torch.empty(rows, dtype=torch.int32, device=logits.device)
    sums = torch.zeros(rows, 6 + PLACES, device=logits.device)
    exponents = torch.ones(PLACES)
    exponents[: len(powers)] -= torch.tensor(powers)
    exponents = exponents.to(logits.device, non_blocking=True)
    launch: Any = _sum_rows[(rows,)]
    launch(
        logits,
        chosen,
        exponents,
        best,
        sums,
        vocabulary,
        logits.stride(0),
        1.0 / divisor,
        greedy=greedy,
        block=BLOCK,
        powers_block=POWERS_BLOCK,
        num_warps=8,
    )
    figures = {"margin": (sums[:, 0].double() - sums[:, 1].double()).clamp(max=farthest), "best": best.double()}
    figures["top"] = sums[:, 0].double()
    if greedy:
        nothing = torch.zeros_like(figures["margin"])
        figures |= dict.fromkeys(("cut", "surprisal", "entropy", "variance", "tail"), nothing)
        return {**figures, "cumulants": nothing[:, None].expand(-1, len(powers))}
    return {**figures, **_distribution(sums.double(), exponents[: len(powers)].double(), divisor, farthest)}


def _distribution(
    sums: torch.Tensor, exponents: torch.Tensor, divisor: float, farthest: float
) -> dict[str, torch.Tensor]:
    """The columns that are of the distribution, from the sums [rows, 6 + PLACES] of `_sum_rows`."""
    largest, own, least, first, second = sums[:, :5].unbind(dim=1)
    raised, total = sums[:, 5 : 5 + len(exponents)], sums[:, 4 + PLACES]
    log_total, mean = total.log(), first / total
    inside = torch.isfinite(own)
    return {
        "cut": torch.where(inside, 0.0, farthest).double(),
        "surprisal": log_total - (torch.where(inside, own, least) - largest) / divisor,
        "entropy": log_total - mean,
        "variance": (second / total - mean * mean).clamp(min=0),
        "tail": sums[:, -1] / total,
        "cumulants": raised.log() - exponents * log_total[:, None],
    }
