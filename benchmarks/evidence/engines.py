"""The engines of a study: the options of vLLM's `LLM` for each, and the model's folder where its config is changed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

ENGINES: Final = ("graphs", "eager", "triton", "fp8", "fp8-kv", "int8-kv", "rope", "window", "transformers")
HONEST: Final = ("graphs", "eager", "triton", "transformers")
"""Those that have the model as it is, and answer honestly."""

ROPE_FACTOR: Final = 2.0
"""By which positions are divided (linear scaling)."""

WINDOW: Final = 256
"""Tokens that attention sees, in place of all, or of the model's own window."""

LENGTH: Final = 3072
"""Tokens of prompt and answer."""

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 96, 128, 256)
"""Sizes of CUDA graphs."""


def load(name: str, folder: str, device: str, kv_gb: float) -> Any:
    """The engine `name`, one of `ENGINES`, of the model in a folder."""
    if name == "transformers":
        from transformers_engine import TransformersEngine

        return TransformersEngine.load(folder, device)
    from vllm_engine import VllmEngine

    config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    if name == "rope":
        folder = reconfigured(folder, {**config, "rope_parameters": scaled(config["rope_parameters"])})
    if name == "window":
        folder = reconfigured(folder, {**config, **windowed(config)})
    most = min(LENGTH, config["max_position_embeddings"])
    return VllmEngine(folder, **{"max_model_len": most, **options(name, kv_gb)})


def options(name: str, kv_gb: float) -> dict[str, Any]:
    """Of vLLM's `LLM`. `kv_gb`: of KV cache."""
    # Sized by hand: vLLM's own measurement fails where other processes take and give back memory meanwhile.
    found: dict[str, Any] = {"gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": int(kv_gb * 2**30)}
    found["enforce_eager"] = name != "graphs"
    if name == "graphs":
        found["compilation_config"] = {"cudagraph_capture_sizes": list(BATCHES)}
    if name == "eager":
        found |= {"max_num_batched_tokens": 128, "max_num_seqs": 64}
    if name == "triton":
        found["attention_config"] = {"backend": "TRITON_ATTN"}
    if name == "fp8":
        found["quantization"] = "fp8"
    if name == "fp8-kv":
        found["kv_cache_dtype"] = "fp8"
    if name == "int8-kv":
        found["kv_cache_dtype"] = "int8_per_token_head"
    return found


def reconfigured(folder: str, config: dict[str, Any]) -> str:
    """The model in a folder under another config."""
    made = Path(tempfile.mkdtemp())
    for path in Path(folder).absolute().iterdir():
        if path.is_file() and path.name != "config.json":
            (made / path.name).symlink_to(path)
    (made / "config.json").write_text(json.dumps(config), "utf-8")
    return str(made)


def scaled(rope: dict[str, Any]) -> dict[str, Any]:
    """Positions divided by `ROPE_FACTOR`; of a model with windows, for each kind of layer."""
    if "rope_type" not in rope:
        return {kind: scaled(parameters) for kind, parameters in rope.items()}
    return {**rope, "rope_type": "linear", "factor": ROPE_FACTOR}


def windowed(config: dict[str, Any]) -> dict[str, Any]:
    """Every layer in a window of `WINDOW`; of a model that has layers with windows, these."""
    kinds = config.get("layer_types") or ["sliding_attention"] * config["num_hidden_layers"]
    return {"sliding_window": WINDOW, "layer_types": kinds}
