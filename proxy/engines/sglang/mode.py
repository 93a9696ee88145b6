"""How a SGLang engine computes, as its worker sees it once the KV cache is there."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.runtime_context import get_parallel

from ...channel.messages import Mode


def mode_of(runner: Any) -> Mode:
    """Of a model runner."""
    parallel = get_parallel()
    backends = {runner.prefill_attention_backend_str, runner.decode_attention_backend_str}
    return Mode(
        attention="+".join(sorted(map(str, backends))),
        tensor_parallel=parallel.tp_size,
        pipeline_parallel=parallel.pp_size,
        execution="eager" if getattr(runner, "decode_cuda_graph_runner", None) is None else "CUDA graphs",
        kv_cache=str(runner.kv_cache_dtype).removeprefix("torch."),
        quantization=runner.model_config.quantization,
        device=_device(torch.device(runner.device)),
    )


def _device(device: torch.device) -> str:
    """A GPU's name, or the instructions that a processor has."""
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return str(torch.get_device_module(device).get_device_name())
