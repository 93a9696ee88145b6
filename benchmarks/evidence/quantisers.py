"""Linear weights rounded as formats of 4 bits keep them, in groups along a row: what an engine computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = 128
"""Weights with a scale and a zero of their own, as most AWQ and GPTQ checkpoints have them."""

NF4_BLOCK, MXFP4_BLOCK = 64, 32

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""Quantiles of a normal variable (Dettmers et al. 2023, arXiv:2305.14314, appendix E)."""

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of a 4-bit float (OCP Microscaling Formats 1.0, section 5.3.3)."""


def int4_groups(weight: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """Round to nearest on 16 steps from the least to the largest of each group (AWQ's and GPTQ's storage format).

    Neither's choice of roundings by example data: what they gain in quality, they gain within this grid.
    """

    def change(groups: torch.Tensor) -> torch.Tensor:
        low, high = groups.amin(-1, keepdim=True).clamp_max(0), groups.amax(-1, keepdim=True).clamp_min(0)
        scale = ((high - low) / 15).clamp_min(1e-12)
        zero = (-low / scale).round()
        return ((groups / scale + zero).round().clamp(0, 15) - zero) * scale

    return _by_groups(weight, group, change)


def nf4(weight: torch.Tensor) -> torch.Tensor:
    """Nearest of 16 quantiles times the largest magnitude of each block of 64 (bitsandbytes' 4-bit NormalFloat)."""

    def change(groups: torch.Tensor) -> torch.Tensor:
        scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12)
        return _nearest(groups / scale, NF4) * scale

    return _by_groups(weight, NF4_BLOCK, change)


def mxfp4(weight: torch.Tensor) -> torch.Tensor:
    """Floats of 4 bits with a power of two for each block of 32 (OCP Microscaling Formats 1.0, section 6.3)."""

    def change(groups: torch.Tensor) -> torch.Tensor:
        largest = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30)
        scale = torch.exp2(torch.floor(torch.log2(largest)) - 2)  # 6 = 1.5 * 2^2 is the largest magnitude
        return _nearest((groups / scale).abs().clamp_max(E2M1[-1]), E2M1) * groups.sign() * scale

    return _by_groups(weight, MXFP4_BLOCK, change)


def _nearest(values: torch.Tensor, grid: tuple[float, ...]) -> torch.Tensor:
    points = torch.tensor(grid, dtype=values.dtype, device=values.device)
    borders = (points[1:] + points[:-1]) / 2
    return points[torch.bucketize(values.contiguous(), borders)]


def _by_groups(weight: torch.Tensor, group: int, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Of a matrix [out, in], with a last group of what is left; its padding is 0, which every grid has."""
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % group))
    return change(padded.reshape(rows, -1, group)).reshape(rows, -1)[:, :columns]
