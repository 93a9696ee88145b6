"""Which of the samplers that can be replayed does this engine have? Told by what it chooses, not by its version."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import torch

from toploc.tokens.noise import SAMPLERS

from ...log import logger
from ..guards import load
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllm.config import VllmConfig

    Choose = Callable[[torch.Tensor, Sequence[int], Sequence[int]], torch.Tensor]

SEEDS: Final = (*range(12), 2**31, 2**40 + 1, 2**53 - 1, 2**62 + 3)
VOCABULARY: Final = 1024
MOST_DIFFERENT: Final = 1
"""Of 16 choices among 1,024 equal logits, by rounding of the two largest."""


def name_sampler(runner: Any, kind: str, config: VllmConfig, device: torch.device) -> str | None:
    """The name under which `toploc.tokens.noise` has the noise of a runner of vLLM's, or None.

    None also with speculation, where tokens are accepted or drawn anew by chances of their own, and with watermarks,
    whose noise is from a key (vllm/v1/watermarking/gpu_sampler.py). A sampler of a model's own is none that is known.
    """
    if config.speculative_config is not None or watermarks(config):
        return None
    try:
        if type(runner.sampler) is not load(reliances.V1_SAMPLER if kind == "v1" else reliances.V2_SAMPLER):
            return None
        choose = _first_runner(runner, device) if kind == "v1" else _second_runner(runner, device)
        return _recognise(choose, device)
    except Exception:
        # Another version's sampler. Answers are proven all the same.
        logger.exception("toploc: the engine's sampler is not one that can be replayed")
        return None


def watermarks(config: VllmConfig) -> bool:
    """Whether answers are watermarked unless their request says otherwise."""
    return getattr(config, "watermark_config", None) is not None


def _recognise(choose: Choose, device: torch.device) -> str | None:
    positions = [7 * i for i in range(len(SEEDS))]
    chosen = choose(torch.zeros(len(SEEDS), VOCABULARY, device=device), SEEDS, positions).cpu()
    for name, make in SAMPLERS.items():
        rows = [make(*at).rows(0, 1, VOCABULARY, torch.device("cpu")) for at in zip(SEEDS, positions, strict=True)]
        if (torch.cat(rows).argmax(dim=-1) != chosen).sum() <= MOST_DIFFERENT:
            return name
    return None


def _first_runner(runner: Any, device: torch.device) -> Choose:
    def choose(logits: torch.Tensor, seeds: Sequence[int], _: Sequence[int]) -> torch.Tensor:
        generators = {i: torch.Generator(device=device).manual_seed(seed) for i, seed in enumerate(seeds)}
        chosen: torch.Tensor = runner.sampler.topk_topp_sampler(logits, generators, None, None)[0]
        return chosen

    return choose


def _second_runner(runner: Any, device: torch.device) -> Choose:
    from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample

    options = {"use_fp64": runner.sampler.use_fp64_gumbel, "is_drafting": False}
    taken = {name: value for name, value in options.items() if name in inspect.signature(gumbel_sample).parameters}

    def choose(logits: torch.Tensor, seeds: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        rows = torch.arange(len(seeds), dtype=torch.int32, device=device)
        temperatures = torch.ones(len(seeds), device=device)
        where = torch.tensor(positions, dtype=torch.int64, device=device)
        drawn = torch.tensor(seeds, dtype=torch.int64, device=device)
        chosen: torch.Tensor = gumbel_sample(logits, rows, temperatures, drawn, where, apply_temperature=False, **taken)
        return chosen

    return choose
