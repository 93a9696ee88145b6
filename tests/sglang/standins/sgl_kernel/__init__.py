"""Stands in for SGLang's own kernels for processors, which no package has.

Where a processor has no AMX, SGLang computes all that dense models need in torch, and imports these by name. What it
calls there is here; the rest is refused when it is called. Where SGLang asks for pinned memory, which there is none of
without an accelerator, it gets ordinary memory from here on: its adapters ask without looking.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def assign_req_to_token_pool_cpu(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    *_: object,
) -> None:
    """Notes where the cache has the new tokens of each request: `out_cache_loc` has their places one after another."""
    counts = (end_offset - start_offset).tolist()
    places = out_cache_loc[: sum(counts)].split(counts)
    for index, start, end, place in zip(
        req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), places, strict=True
    ):
        req_to_token[index, start:end] = place


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} is not in this stand-in")

    return absent


def _unpinned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(make)
    def made(*args: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return make(*args, **options)

    return made


for _name in ("arange", "empty", "tensor", "zeros"):
    setattr(torch, _name, _unpinned(getattr(torch, _name)))
torch.Tensor.pin_memory = lambda tensor, *_: tensor  # type: ignore[assignment, method-assign]
