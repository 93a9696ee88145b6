"""The sampler of the vLLM that is installed is told from others by what it chooses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toploc_proxy.engines.vllm.sampler import name_sampler
from vllm.config.watermarking import WatermarkConfig
from vllm.platforms import current_platform
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
from vllm.v1.sample.sampler import Sampler

from toploc.tokens.noise import noise_of


class Fails(torch.nn.Module):
    """Takes other arguments."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits


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


def named(sampler: Any, kind: str = "v1", kind_of_sampler: type[Sampler] = Sampler, **options: object) -> str | None:
    runner: Any = SimpleNamespace(sampler=kind_of_sampler())
    runner.sampler.topk_topp_sampler = sampler
    config: Any = SimpleNamespace(**{"speculative_config": None, **options})
    return name_sampler(runner, kind, config, CPU)


def test_it_is_named_by_what_it_chooses(sampler: TopKTopPSampler) -> None:
    assert named(sampler) == "splitmix64"
    assert named(sampler, watermark_config=None) == "splitmix64"
    # What vLLM uses elsewhere: exponential variables of a generator of the device's.
    native = TopKTopPSampler()
    native.forward = native.forward_native  # type: ignore[method-assign]
    assert named(native) is None


def test_what_chooses_otherwise_has_no_name(sampler: TopKTopPSampler) -> None:
    """It would choose as known where it is asked, and another way for answers."""

    class OfTheModelsOwn(Sampler):
        pass

    assert named(sampler, speculative_config=object()) is None
    assert named(sampler, kind_of_sampler=OfTheModelsOwn) is None
    assert named(sampler, watermark_config=WatermarkConfig(key=7)) is None


def test_one_that_cannot_be_asked_has_no_name(sampler: TopKTopPSampler) -> None:
    assert named(Fails()) is None
    assert named(sampler, kind="v2") is None
