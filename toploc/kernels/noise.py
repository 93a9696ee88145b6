"""The bits that noise is made of, on a GPU.

`toploc.tokens.noise` computes the same in 64-bit integers, operation by operation, at a hundred times the memory
traffic.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import triton
import triton.language as tl

BLOCK: Final = 1024
"""Tokens of the vocabulary for which a program makes words."""


@triton.jit
def _philox(keys, words, vocabulary, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first word of Philox-4x32-10 with key (keys[row], 0) and counter (column, 0, 0, 0)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    zero = tl.zeros((block,), tl.uint32)
    key, high = zero + tl.load(keys + row).to(tl.uint32), zero
    a, b, c, d = column.to(tl.uint32), zero, zero, zero
    one, two = tl.full((block,), 0xD2511F53, tl.uint32), tl.full((block,), 0xCD9E8D57, tl.uint32)
    for _ in tl.static_range(10):
        first, third = a, c
        a = tl.umulhi(two, third) ^ b ^ key
        b = two * third
        c = tl.umulhi(one, first) ^ d ^ high
        d = one * first
        key += tl.full((block,), 0x9E3779B9, tl.uint32)
        high += tl.full((block,), 0xBB67AE85, tl.uint32)
    tl.store(words + row * vocabulary + column, a.to(tl.int64), mask=column < vocabulary)


@triton.jit
def _murmur(states, words, vocabulary, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """MurmurHash3_x86_32 of four words, of which the last is the column and the others are in states[row]."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    word = column.to(tl.uint32) * tl.full((block,), 0xCC9E2D51, tl.uint32)
    word = ((word << 15) | (word >> 17)) * tl.full((block,), 0x1B873593, tl.uint32)
    state = tl.load(states + row).to(tl.uint32) ^ word
    state = ((state << 13) | (state >> 19)) * 5 + tl.full((block,), 0xE6546B64, tl.uint32)
    state = state ^ 16
    state = (state ^ (state >> 16)) * tl.full((block,), 0x85EBCA6B, tl.uint32)
    state = (state ^ (state >> 13)) * tl.full((block,), 0xC2B2AE35, tl.uint32)
    state = state ^ (state >> 16)
    tl.store(words + row * vocabulary + column, state.to(tl.int64), mask=column < vocabulary)


def philox_words(keys: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """32 bits of each token under each key, int64 [rows, vocabulary]; keys int64 [rows]."""
    return _words(_philox, keys, vocabulary)


def murmur_words(states: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """The hash of each token after each state, int64 [rows, vocabulary]; states int64 [rows]."""
    return _words(_murmur, states, vocabulary)


def _words(kernel: Any, seeds: torch.Tensor, vocabulary: int) -> torch.Tensor:
    words = torch.empty(len(seeds), vocabulary, dtype=torch.int64, device=seeds.device)
    kernel[(len(seeds), triton.cdiv(vocabulary, BLOCK))](seeds, words, vocabulary, block=BLOCK)
    return words
