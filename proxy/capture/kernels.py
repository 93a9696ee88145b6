"""The kernels of the ring on a GPU."""

from __future__ import annotations

import triton
import triton.language as tl

from toploc.kernels.topk import top_k_chunk


# `n` changes from step to step, and must not be compiled for again.
@triton.jit(do_not_specialize=["n"])
def write_rows(  # type: ignore[no-untyped-def]
    hidden_states,
    positions,
    input_ids,
    plan,
    values,
    tags,
    ids,
    n,
    hidden: tl.constexpr,
    stride: tl.constexpr,
    num_rows: tl.constexpr,
    block: tl.constexpr,
):
    i = tl.program_id(0)
    row = tl.load(plan + i)
    slot = tl.load(plan + n + i)
    epoch = tl.load(plan + 2 * n + i)
    position = tl.load(positions + row)
    at = slot * num_rows + position % num_rows
    for start in range(0, hidden, block):
        column = start + tl.arange(0, block)
        inside = column < hidden
        value = tl.load(hidden_states + row * stride + column, mask=inside)
        tl.store(values + at * hidden + column, value.to(values.dtype.element_ty), mask=inside)
    tl.store(tags + at, (epoch << 32) + position)
    tl.store(ids + at, tl.load(input_ids + row).to(tl.int32))


@triton.jit
def reduce_chunks(  # type: ignore[no-untyped-def]
    chunks,
    values,
    tags,
    ids,
    out,
    ring: tl.constexpr,
    hidden: tl.constexpr,
    k: tl.constexpr,
    chunk_size: tl.constexpr,
    block: tl.constexpr,
):
    chunk = tl.program_id(0)
    chunks += 4 * chunk
    base, first, num_rows, epoch = tl.load(chunks), tl.load(chunks + 1), tl.load(chunks + 2), tl.load(chunks + 3)
    out += chunk * (2 * k + 2 * chunk_size)
    j = tl.arange(0, chunk_size)
    row = base + (first + j) % ring
    inside = j < num_rows
    tag = tl.load(tags + row, mask=inside, other=-1).to(tl.int64)
    position = tl.where((tag >> 32) == epoch, tag & 0xFFFFFFFF, -1)
    tl.store(out + 2 * k + j, position.to(tl.int32))
    tl.store(out + 2 * k + chunk_size + j, tl.load(ids + row, mask=inside, other=-1).to(tl.int32))
    top_k_chunk(values, base, first, num_rows, ring, out, out + k, hidden, k, block)
