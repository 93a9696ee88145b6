"""The k elements of largest magnitude of a chunk; ties at the boundary go to the lower index.

A magnitude is the bit pattern without its sign, `pattern & 0x7fff`; its order as an integer is that of the
absolute values, with NaN above infinity above the rest, for bfloat16 and float16 alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from ..errors import InvalidActivations
from ..kernels.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BLOCK: Final = 64
"""Elements whose largest magnitude is found at once."""

_MAGNITUDE: Final = 0x7FFF
"""The bits of a pattern without its sign."""


@kernel
def _rank_value(magnitudes: NDArray[np.uint16], rank: int) -> int:
    """The `rank`-th largest of the magnitudes, by bisection of the value: 15 passes that only count."""
    low, high = 0, _MAGNITUDE  # at least `rank` are >= low; fewer are > high
    while low < high:
        middle = (low + high + 1) // 2
        least = np.uint16(middle)
        count = np.uint32(0)
        for i in range(magnitudes.size):
            count += np.uint32(magnitudes[i] >= least)
        if count >= rank:
            low = middle
        else:
            high = middle - 1
    return low


@kernel
def _block_maxima(patterns: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The largest magnitude of every 64 elements, the last block being shorter.

    A fixed length and a conditional in place of `max` let LLVM use 16-bit vector maxima: 15 times faster.
    """
    maxima = np.zeros((patterns.size + _BLOCK - 1) // _BLOCK, np.uint16)
    for block in range(patterns.size // _BLOCK):
        elements = patterns[block * _BLOCK : block * _BLOCK + _BLOCK]
        largest = np.uint16(0)
        for i in range(_BLOCK):
            magnitude = np.uint16(elements[i] & np.uint16(_MAGNITUDE))
            largest = magnitude if magnitude > largest else largest
        maxima[block] = largest
    for pattern in patterns[patterns.size // _BLOCK * _BLOCK :]:
        maxima[-1] = max(maxima[-1], np.uint16(pattern & np.uint16(_MAGNITUDE)))
    return maxima


@kernel
def _keep_largest(magnitudes: NDArray[np.uint16], indices: NDArray[np.int32], count: int, k: int) -> int:
    """Move the k largest of the first `count` candidates, earlier ones first among equals, to the front.

    Returns the smallest magnitude kept.
    """
    smallest = _rank_value(magnitudes[:count], k)
    equals = k
    for i in range(count):
        equals -= magnitudes[i] > smallest
    kept = 0
    for i in range(count):
        if magnitudes[i] > smallest or (magnitudes[i] == smallest and equals > 0):
            equals -= magnitudes[i] == smallest
            magnitudes[kept] = magnitudes[i]
            indices[kept] = indices[i]
            kept += 1
    return smallest


@kernel
def _top_k(patterns: NDArray[np.uint16], k: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """The k winners' indices, ascending, and patterns.

    The k-th largest block maximum is a lower bound of the k-th largest magnitude, so most blocks need no
    second look. Candidates are kept in order of index; when their buffer is full, all but the best k are
    dropped, and from then on a candidate must exceed the smallest kept, since an equal one has a higher
    index and loses.
    """
    maxima = _block_maxima(patterns)
    enter = _rank_value(maxima, k) if maxima.size >= k else 0
    capacity = max(4096, 4 * k)
    magnitudes = np.empty(capacity, np.uint16)
    candidates = np.empty(capacity, np.int32)
    count = 0
    for block in range(maxima.size):
        if maxima[block] < enter:
            continue
        start = block * _BLOCK
        if count + _BLOCK > capacity:
            enter = _keep_largest(magnitudes, candidates, count, k) + 1
            count = k
        for i in range(start, min(start + _BLOCK, patterns.size)):
            magnitude = np.uint16(patterns[i] & np.uint16(_MAGNITUDE))
            if magnitude >= enter:
                magnitudes[count] = magnitude
                candidates[count] = i
                count += 1
    _keep_largest(magnitudes, candidates, count, k)
    winners = np.empty(k, np.uint16)
    for i in range(k):
        winners[i] = patterns[candidates[i]]
    return candidates[:k].copy(), winners


def top_k(patterns: NDArray[np.uint16], k: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """The k elements of largest magnitude of one flattened chunk, ascending by index; releases the GIL.

    `patterns` is a contiguous uint16[elements] of bit patterns; the result is int32[k] and uint16[k].
    Raises InvalidActivations if the chunk has fewer than k elements or more than int32 can index.
    """
    if not 0 < k <= patterns.size < 2**31:
        raise InvalidActivations(f"top-{k} of a chunk of {patterns.size} elements")
    return _top_k(patterns, k)


def top_k_tensor(
    chunks: torch.Tensor, k: int, rows_valid: torch.Tensor | Sequence[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`top_k` of n chunks at once, on their device: int32[n, k] and int16[n, k] of a 16-bit [n, elements].

    `rows_valid[i]` is the number of elements of chunk i that count; those behind never win while the count is
    at least k (below, the surplus points lie behind the count, and the caller must not encode them).
    On CUDA it never synchronises: shapes are fixed, and counts in a list become fills, not a copy.
    The results are the same on every device. Raises InvalidActivations for a chunk of fewer than k elements.
    """
    if chunks.ndim != 2 or chunks.element_size() != 2 or not 0 < k <= chunks.shape[1] < 2**31:
        raise InvalidActivations(f"top-{k} of a tensor {tuple(chunks.shape)} of {chunks.dtype}")
    patterns = chunks.view(torch.int16)
    elements = patterns.shape[1]
    # Keys are unique, so that the winners are no device's choice: magnitude first, then the lower index.
    order = torch.arange(elements - 1, -1, -1, device=patterns.device)
    keys = (patterns & _MAGNITUDE).long() << 32 | order
    if isinstance(rows_valid, torch.Tensor):
        position = torch.arange(elements, device=patterns.device)
        keys = torch.where(position < rows_valid[:, None], keys, order - 2**40)
    elif rows_valid is not None:
        for row, count in enumerate(rows_valid):
            keys[row, count:] = order[count:] - 2**40
    indices = keys.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    return indices.int(), patterns.gather(1, indices)
