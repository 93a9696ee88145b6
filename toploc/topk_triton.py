"""Exact top-k of many chunks on a GPU: one program a chunk, three passes, no sort and no scratch memory.

A magnitude has 15 bits. The first pass counts its upper 8 bits, the second the lower 7 within the bin where the k-th
largest lies, which gives the k-th magnitude exactly; the third collects, by ascending index, all that are larger and
as many equal ones as are missing. Ties therefore go to the lower index, as on a CPU (`topk.top_k`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

if TYPE_CHECKING:
    import torch

# Elements a program looks at in one go; a power of two.
BLOCK = 4096


@triton.jit
def _magnitudes(values, row, hidden, start, block: tl.constexpr):  # type: ignore[no-untyped-def]
    column = start + tl.arange(0, block)
    inside = column < hidden
    pattern = tl.load(values + row * hidden + column, mask=inside, other=0).to(tl.int32)
    return tl.where(inside, pattern & 0x7FFF, -1), pattern, column


@triton.jit
def _top_k_rows(  # type: ignore[no-untyped-def]
    values, rows, indices, patterns, hidden, num_rows, k: tl.constexpr, stride_out, block: tl.constexpr
):
    chunk = tl.program_id(0)
    rows += chunk * num_rows

    upper = tl.zeros((512,), tl.int32)
    for j in range(num_rows):
        row = tl.load(rows + j)
        for start in range(0, tl.where(row >= 0, hidden, 0), block):
            magnitude, _, _ = _magnitudes(values, row, hidden, start, block)
            upper += tl.histogram(tl.where(magnitude >= 0, magnitude >> 7, 256), 512)
    bins = tl.arange(0, 512)
    upper = tl.where(bins < 256, upper, 0)
    at_least = tl.cumsum(upper, reverse=True)
    bin_k = tl.max(tl.where(at_least >= k, bins, 0))
    above = tl.sum(tl.where(bins > bin_k, upper, 0))

    lower = tl.zeros((256,), tl.int32)
    for j in range(num_rows):
        row = tl.load(rows + j)
        for start in range(0, tl.where(row >= 0, hidden, 0), block):
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
        row = tl.load(rows + j)
        for start in range(0, tl.where(row >= 0, hidden, 0), block):
            magnitude, pattern, column = _magnitudes(values, row, hidden, start, block)
            equal = (magnitude == kth).to(tl.int32)
            if tl.max(magnitude) >= kth:
                equal_rank = equal_before + tl.cumsum(equal)
                take = (magnitude > kth) | ((equal == 1) & (equal_rank <= missing))
                place = taken + tl.cumsum(take.to(tl.int32)) - 1
                tl.store(indices + chunk * stride_out + place, j * hidden + column, mask=take)
                tl.store(patterns + chunk * stride_out + place, pattern & 0xFFFF, mask=take)
                taken += tl.sum(take.to(tl.int32))
                equal_before += tl.sum(equal)


def top_k_rows(values: torch.Tensor, rows: torch.Tensor, k: int, indices: torch.Tensor, patterns: torch.Tensor) -> None:
    """Top-k of n chunks whose rows lie anywhere in `values`; enqueued on the current stream.

    Args:
        values: 16-bit patterns, int16 [any, hidden], contiguous.
        rows: which rows of `values` make up each chunk, int64 [n, rows], contiguous; -1 for none.
        k: how many; at most the elements of the shortest chunk.
        indices: receives positions in the flattened chunk, ascending, int32 [n, k], rows `indices.stride(0)` apart.
        patterns: receives the values there, int32 [n, k], rows the same distance apart.
    """
    num_chunks, num_rows = rows.shape
    hidden = values.shape[-1]
    block = min(BLOCK, triton.next_power_of_2(hidden))
    launch: Any = _top_k_rows[(num_chunks,)]
    launch(values, rows, indices, patterns, hidden, num_rows, k, indices.stride(0), block=block, num_warps=8)
