"""Stands in for SGLang's own kernels for processors, which no package has.

Where a processor has no AMX, SGLang computes all that dense models need in torch, and imports these by name. What it
calls there is here; the rest is refused when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


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
