"""Small models with random weights, of architectures that the bundled one is not of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, NemotronHConfig

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
COMMON: dict[str, Any] = {"vocab_size": 4096, "hidden_size": 256, "max_position_embeddings": 2048, "dtype": "bfloat16"}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}


def gemma() -> Gemma3TextConfig:
    """Every second layer sees the last 32 positions alone."""
    return Gemma3TextConfig(
        **COMMON,
        **HEADS,
        intermediate_size=512,
        num_hidden_layers=4,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=64,
    )


def nemotron_h() -> NemotronHConfig:
    """Mamba's layers with their states, attention, and layers of neither."""
    return NemotronHConfig(
        **COMMON,
        **HEADS,
        intermediate_size=512,
        layers_block_type=["mamba", "mlp", "attention", "mlp", "mamba", "mlp"],
        mamba_num_heads=8,
        mamba_head_dim=64,
        n_groups=2,
        ssm_state_size=32,
        chunk_size=32,
    )


def save(config: Any, folder: Path) -> Path:
    """With the bundled model's tokenizer, which takes no part in it."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    for file in MODEL.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder
