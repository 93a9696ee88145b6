"""The sampler of the vLLM that is installed is told from others by what it chooses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toploc_proxy.engines.vllm.sampler import name_sampler
from vllm.platforms import current_platform
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

from toploc.tokens.noise import noise_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sampler() -> TopKTopPSampler:
    current_platform.import_kernels()
    return TopKTopPSampler()


def test_the_first_runners_noise_on_processors(sampler: TopKTopPSampler) -> None:
    seeds = [0, 7, -3, 2**53 - 1, 2**63 - 1]
    generators = {row: torch.Generator().manual_seed(seed) for row, seed in enumerate(seeds)}
    noises = [noise_of("splitmix64", seed, 20) for seed in seeds]
    for step in range(20):
        logits = torch.randn(len(seeds), 3000) * 3
        chosen, _ = sampler(logits.clone(), generators, None, None)
        for row, noise in enumerate(noises):
            assert noise is not None
            assert (logits[row] + noise.rows(step, 1, 3000, CPU)).argmax() == chosen[row]


def named(sampler: object, speculative_config: object = None, kind: str = "v1") -> str | None:
    runner: Any = SimpleNamespace(sampler=SimpleNamespace(topk_topp_sampler=sampler))
    config: Any = SimpleNamespace(speculative_config=speculative_config)
    return name_sampler(runner, kind, config, CPU)


def test_it_is_named_by_what_it_chooses(sampler: TopKTopPSampler) -> None:
    assert named(sampler) == "splitmix64"
    assert named(sampler, speculative_config=object()) is None
    # What vLLM uses elsewhere: exponential variables of a generator of the device's.
    assert named(sampler.forward_native) is None


def test_one_that_cannot_be_asked_has_no_name(sampler: TopKTopPSampler) -> None:
    assert named(lambda logits: logits) is None
    assert named(sampler, kind="v2") is None
