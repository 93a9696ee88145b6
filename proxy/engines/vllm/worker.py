"""A vLLM worker as its configuration tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vllm

from ...capture.sizes import Shape
from ...worker import Description

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from ...channel.messages import Mode


def shape_of(config: VllmConfig) -> Shape:
    """What the ring of a worker with this configuration has to be made for."""
    speculative = config.speculative_config
    return Shape(
        hidden_size=config.model_config.get_hidden_size(),
        dtype=config.model_config.dtype,
        sequences=config.scheduler_config.max_num_seqs,
        draft_tokens=int(speculative.num_speculative_tokens) if speculative is not None else 0,
    )


def describe(config: VllmConfig, runner: str, sampler: str | None, mode: Mode) -> Description:
    """The worker of an engine with this configuration."""
    engine = config.parallel_config.data_parallel_index
    return Description(shape_of(config), vllm.__version__, runner, engine, sampler, mode)
