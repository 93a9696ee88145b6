"""Where tensors are, and whether kernels of ours run there."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def has_kernels(tensor: torch.Tensor) -> bool:
    """Whether the Triton kernels can take the tensor: it is on a GPU, and torch came with Triton, as on Linux. Every
    one of them has a way in torch beside it."""
    return tensor.is_cuda and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
