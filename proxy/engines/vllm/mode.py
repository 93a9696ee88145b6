"""How a vLLM engine computes, as one of its workers sees it once its KV cache is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.config import CompilationMode
from vllm.platforms import current_platform

from ...channel.messages import Mode

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def mode_of(runner: Any) -> Mode:
    """Of a model runner of either kind."""
    config: VllmConfig = runner.vllm_config
    model, parallel = config.model_config, config.parallel_config
    cached = str(config.cache_config.cache_dtype)
    return Mode(
        attention=attention_of(runner),
        tensor_parallel=parallel.tensor_parallel_size,
        pipeline_parallel=parallel.pipeline_parallel_size,
        execution=execution_of(config),
        kv_cache=str(model.dtype).removeprefix("torch.") if cached == "auto" else cached,
        quantization=model.quantization,
        device=device_of(runner.device),
    )


def attention_of(runner: Any) -> str:
    """Names of the back ends of all layers with a cache (vllm/v1/worker/utils.py, AttentionGroup)."""
    groups = [group for of_cache in runner.attn_groups for group in of_cache]
    return "+".join(sorted({group.backend.get_name() for group in groups}))


def execution_of(config: VllmConfig) -> str:
    """The mode of CUDA graphs, such as FULL_AND_PIECEWISE; `compiled` or `eager` without any."""
    compilation = config.compilation_config
    graphs = compilation.cudagraph_mode
    # The CPU's runner takes none whatever the configuration says (vllm/v1/worker/cpu_model_runner.py).
    if graphs is not None and graphs.name != "NONE" and not current_platform.is_cpu():
        return str(graphs.name)
    return "eager" if compilation.mode in (None, CompilationMode.NONE) else "compiled"


def device_of(device: torch.device) -> str:
    """A GPU's name, or the instructions that a processor has."""
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return str(current_platform.get_device_name())
