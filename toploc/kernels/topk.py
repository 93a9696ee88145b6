"""Exact top-k of many chunks on a GPU: one program a chunk, three passes, no sort and no scratch memory.

A magnitude has 15 bits. The first pass counts its upper 8 bits, the second the lower 7 within the bin where the k-th
largest lies, which gives the k-th magnitude exactly; the third collects, by ascending index, all that are larger and
as many equal ones as are missing. Ties therefore go to the lower index, as on a CPU (`topk.top_k`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import triton
import triton.language as tl

if TYPE_CHECKING:
    import torch

BLOCK: Final = 4096
"""Elements a program looks at in one go; a power of two."""

NUM_WARPS: Final = 8
"""Of a program that takes a chunk."""


@triton.jit
def _magnitudes(values, row, hidden, start, block: tl.constexpr):  # type: ignore[no-untyped-def]
    column = start + tl.arange(0, block)
    inside = column < hidden
    pattern = tl.load(values + row * hidden + column, mask=inside, other=0).to(tl.int32)
    return tl.where(inside, pattern & 0x7FFF, -1), pattern, column


@triton.jit
def top_k_chunk(  # type: ignore[no-untyped-def]
    values, base, first, num_rows, ring, indices, patterns, hidden, k: tl.constexpr, block: tl.constexpr
):
    """Top-k of the rows `base + (first + j) % ring` of `values`, j below `num_rows`, by one program.

    Indices into the flattened chunk, ascending, and the 16-bit patterns there go to `indices` and `patterns`, k each.
    """
    upper = tl.zeros((512,), tl.int32)
    for j in range(num_rows):
        row = base + (first + j) % ring
        for start in range(0, hidden, block):
            magnitude, _, _ = _magnitudes(values, row, hidden, start, block)
            upper += tl.histogram(tl.where(magnitude >= 0, magnitude >> 7, 256), 512)
    bins = tl.arange(0, 512)
    upper = tl.where(bins < 256, upper, 0)
    at_least = tl.cumsum(upper, reverse=True)
    bin_k = tl.max(tl.where(at_least >= k, bins, 0))
    above = tl.sum(tl.where(bins > bin_k, upper, 0))

    lower = tl.zeros((256,), tl.int32)
    for j in range(num_rows):
        row = base + (first + j) % ring
        for start in range(0, hidden, block):
            magnitude, _, _ = _magnitudes(values, row, hidden, start, block)
            lower += tl.histogram(tl.where((magnitude >> 7) == bin_k, magnitude & 0x7F, 128), 256)
    bins = tl.arange(0, 256)
    lower = tl.where(bins < 128, lower, 0)
    at_least = tl.cumsum(lower, reverse=True) + above
    low_k = tl.max(tl.where(at_least >= k, bins, 0))
    missing = k - above - tl.sum(tl.where(bins > low_k, lower, 0))
    kth = (bin_k << 7) | low_k

    taken = 0
    equal_before = 0
    for j in range(num_rows):
        row = base + (first + j) % ring
        for start in range(0, hidden, block):
            magnitude, pattern, column = _magnitudes(values, row, hidden, start, block)
            equal = (magnitude == kth).to(tl.int32)
            if tl.max(magnitude) >= kth:
                equal_rank = equal_before + tl.cumsum(equal)
                take = (magnitude > kth) | ((equal == 1) & (equal_rank <= missing))
                place = taken + tl.cumsum(take.to(tl.int32)) - 1
                tl.store(indices + place, j * hidden + column, mask=take)
                tl.store(patterns + place, pattern & 0xFFFF, mask=take)
                taken += tl.sum(take.to(tl.int32))
                equal_before += tl.sum(equal)


@triton.jit(do_not_specialize=["total"])
def _top_k_rows(  # type: ignore[no-untyped-def]
    values, total, chunk_size, indices, patterns, stride_out, hidden, k: tl.constexpr, block: tl.constexpr
):
    chunk = tl.program_id(0).to(tl.int64)
    first = chunk * chunk_size
    at = chunk * stride_out
    num_rows = tl.minimum(total - first, chunk_size)
    top_k_chunk(values, 0, first, num_rows, total, indices + at, patterns + at, hidden, k, block)


def block_of(hidden: int) -> int:
    """The `block` that these kernels are launched with."""
    return min(BLOCK, int(triton.next_power_of_2(hidden)))


def top_k_rows(values: torch.Tensor, chunk_size: int, k: int, indices: torch.Tensor, patterns: torch.Tensor) -> None:
    """Top-k of every chunk of consecutive rows, n in all; enqueued on the current stream.

    Args:
        values: 16-bit patterns, int16 [rows, hidden], contiguous.
        chunk_size: rows of a chunk; the last may have fewer.
        k: how many; at most the elements of the shortest chunk.
        indices: receives positions in the flattened chunk, ascending, int32 [n, k], rows `indices.stride(0)` apart.
        patterns: receives the values there, int32 [n, k], rows the same distance apart.
    """
    total, hidden = values.shape
    launch: Any = _top_k_rows[(-(-total // chunk_size),)]
    stride = indices.stride(0)
    launch(
        values, total, chunk_size, indices, patterns, stride, hidden, k=k, block=block_of(hidden), num_warps=NUM_WARPS
    )
