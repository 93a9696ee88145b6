"""What prefix caching costs the engine's thread for a prefill that reads nothing from it, as verifications are.

    python benchmarks/verify/caching.py [--tokens 383 639 2047] [--repeats 600]

vLLM's own request and block manager, without a model: a request's blocks are hashed, taken, and given back.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request

BLOCK = 16
"""Tokens, vLLM's default."""

VOCABULARY = 128_000


def manager(*, caching: bool) -> KVCacheManager:
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=8, head_size=128, dtype=torch.bfloat16)
    config = KVCacheConfig(20_000, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    return KVCacheManager(config, 8192, BLOCK, BLOCK, enable_caching=caching)


def microseconds(tokens: int, repeats: int, *, caching: bool) -> np.ndarray:
    """Processor time of each of so many requests."""
    blocks, hasher = manager(caching=caching), get_request_block_hasher(BLOCK, sha256)
    params = SamplingParams(max_tokens=1, skip_reading_prefix_cache=True)
    taken = []
    for _ in range(repeats):
        ids = random.choices(range(VOCABULARY), k=tokens)
        began = time.thread_time_ns()
        request = Request("verification", ids, params, None, block_hasher=hasher if caching else None)
        blocks.get_computed_blocks(request)
        blocks.allocate_slots(request, tokens)
        blocks.free(request)
        taken.append((time.thread_time_ns() - began) / 1e3)
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[383, 639, 2047], help="of prompt and answer")
    parser.add_argument("--repeats", type=int, default=600)
    options = parser.parse_args()
    init_none_hash(sha256)
    print("| tokens | without, µs: least, median | with | |\n|---|---|---|---|")
    for tokens in options.tokens:
        without, cached = (microseconds(tokens, options.repeats, caching=caching) for caching in (False, True))
        print(
            f"| {tokens:,} | {without.min():.0f}, {np.median(without):.0f} | {cached.min():.0f}, "
            f"{np.median(cached):.0f} | {cached.min() - without.min():.0f} more |"
        )


if __name__ == "__main__":
    main()
