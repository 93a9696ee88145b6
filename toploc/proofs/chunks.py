"""Chunks of activations and their top-k points: what the prover encodes and the verifier compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from ..errors import InvalidActivations
from ..kernels.device import has_kernels
from ..scheme import CHUNK_SIZE
from .topk import top_k, top_k_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_DTYPES: Final = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "bfloat16"}
"""The dtype of the patterns that are proven of a tensor."""


@dataclass(frozen=True, slots=True)
class Points:
    """The top-k points of n chunks: int32[n, k] indices, uint16[n, k] patterns, and the rows of each
    chunk."""

    indices: NDArray[np.int32]
    patterns: NDArray[np.uint16]
    rows: tuple[int, ...]


def proof_dtype(activations: torch.Tensor | Sequence[torch.Tensor]) -> tuple[str, bool]:
    """The dtype of the proven patterns, and whether float32 is rounded to it.

    Raises InvalidActivations for anything but bfloat16, float16 and float32 tensors of one dtype.
    """
    tensors = [activations] if isinstance(activations, torch.Tensor) else activations
    if not isinstance(tensors, list | tuple):
        raise InvalidActivations(f"expected a tensor or a list of tensors, got {type(tensors).__name__}")
    dtypes = {tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor) for tensor in tensors}
    if not dtypes:
        return "bfloat16", False
    if len(dtypes) > 1 or not dtypes <= _DTYPES.keys():
        names = ", ".join(sorted(map(str, dtypes)))
        raise InvalidActivations(f"expected tensors of one dtype, bfloat16, float16 or float32, got {names}")
    if any(tensor.is_meta for tensor in tensors):
        raise InvalidActivations("meta tensors have no values")
    return _DTYPES[tensors[0].dtype], tensors[0].dtype == torch.float32


def split(
    activations: torch.Tensor | Sequence[torch.Tensor], chunk_size: int, skip_prefill: bool = True
) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield every chunk, flattened, and its number of rows; one chunk is held at a time.

    `activations` is a tensor [rows, hidden], whose chunks are views where it is contiguous, or a sequence of
    tensors, `chunk_size` of which make a chunk. Without `skip_prefill` the first item, or row, is a chunk of
    its own. Raises InvalidActivations for other shapes, and if there is no first item to be the prefill.
    """
    if isinstance(activations, torch.Tensor):
        if activations.ndim != 2:
            raise InvalidActivations(f"expected a tensor [rows, hidden], got {tuple(activations.shape)}")
        activations = activations.detach()
    if chunk_size < 1:
        raise InvalidActivations(f"expected chunks of at least 1 row, got {chunk_size}")
    total = len(activations)
    if not skip_prefill and total == 0:
        raise InvalidActivations("there is no prefill in empty activations")
    ranges = [] if skip_prefill else [(0, 1)]
    ranges += [(start, min(start + chunk_size, total)) for start in range(len(ranges), total, chunk_size)]
    for start, end in ranges:
        items = activations[start:end]
        if isinstance(items, torch.Tensor):
            yield items.reshape(-1), end - start
        else:
            rows = sum(item.shape[0] if item.ndim > 1 else 1 for item in items)
            yield torch.cat([item.detach().reshape(-1) for item in items]), rows


def count(activations: torch.Tensor | Sequence[torch.Tensor], chunk_size: int, skip_prefill: bool = True) -> int:
    """How many chunks `split` yields."""
    rows = len(activations)
    prefill = 0 if skip_prefill else min(rows, 1)
    return prefill + -(-(rows - prefill) // max(chunk_size, 1))


def state_points(states: torch.Tensor, topk: int) -> Points:
    """The top-k points of every chunk of 32 rows of hidden states [rows, hidden], where they are.

    Raises InvalidActivations for a chunk of fewer than k elements.
    """
    if not has_kernels(states) or not len(states):
        return find_points(split(states, CHUNK_SIZE), topk)
    from ..kernels.topk import top_k_rows

    sizes = [min(CHUNK_SIZE, len(states) - first) for first in range(0, len(states), CHUNK_SIZE)]
    if sizes[-1] * states.shape[1] < topk:
        raise InvalidActivations(f"top-{topk} of a chunk of {sizes[-1] * states.shape[1]} elements")
    patterns = (states.to(torch.bfloat16) if states.dtype == torch.float32 else states).contiguous().view(torch.int16)
    points = torch.empty(len(sizes), 2 * topk, dtype=torch.int32, device=states.device)
    top_k_rows(patterns, CHUNK_SIZE, topk, points, points[:, topk:])
    values = points.cpu().numpy()
    return Points(values[:, :topk].copy(), values[:, topk:].astype(np.uint16), tuple(sizes))


def find_points(chunks: Iterable[tuple[torch.Tensor, int]], topk: int) -> Points:
    """The top-k points of each flattened chunk, which comes with its number of rows.

    Chunks on a GPU are reduced there, and only points are copied, after all are under way.
    Raises InvalidActivations for a chunk of fewer than k elements.
    """
    on_host: list[tuple[NDArray[np.int32], NDArray[np.uint16]]] = []
    on_device: list[tuple[torch.Tensor, torch.Tensor]] = []
    rows: list[int] = []
    for chunk, size in chunks:
        rows.append(size)
        patterns = (chunk.to(torch.bfloat16) if chunk.dtype == torch.float32 else chunk).view(torch.int16)
        if patterns.is_cuda:
            on_device.append(top_k_tensor(patterns[None], topk))
        else:
            on_host.append(top_k(patterns.numpy().view(np.uint16), topk))
    if not rows:
        return Points(np.empty((0, topk), np.int32), np.empty((0, topk), np.uint16), ())
    if on_device:
        copied = (torch.cat(part).cpu().numpy() for part in zip(*on_device, strict=True))
        return Points(next(copied), next(copied).view(np.uint16), tuple(rows))
    stacked = np.stack([indices for indices, _ in on_host]), np.stack([values for _, values in on_host])
    return Points(*stacked, tuple(rows))
