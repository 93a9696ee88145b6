"""Random LoRA adapters of the bundled model, and the model with one merged into its weights."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

MODEL = Path(__file__).parent / "toploc-mini"
RANK, ALPHA = 8, 16
ADAPTED = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def make_adapter(directory: Path, seed: int, adapted: Sequence[str] = ADAPTED, *, model: Path = MODEL) -> None:
    """A random adapter in peft's format."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    weights = load_file(model / "model.safetensors")
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    for name, weight in weights.items():
        if any(name.endswith(f"{module}.weight") for module in adapted):
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            out, into = weight.shape
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(RANK, into, generator=generator).bfloat16() * 0.05
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(out, RANK, generator=generator).bfloat16() * 0.05
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [module.rpartition(".")[2] for module in adapted],
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))


def merge(adapter: Path, destination: Path, *, model: Path = MODEL) -> None:
    """The model with the adapter's deltas in its weights."""
    destination.mkdir()
    weights = load_file(model / "model.safetensors")
    tensors = load_file(adapter / "adapter_model.safetensors")
    for key in [key for key in tensors if key.endswith("lora_A.weight")]:
        name = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        delta = tensors[key.replace("lora_A", "lora_B")].double() @ tensors[key].double() * (ALPHA / RANK)
        weights[name] = (weights[name].double() + delta).bfloat16()
    save_file(weights, destination / "model.safetensors", metadata={"format": "pt"})
    for file in model.iterdir():
        if file.suffix in {".json", ".jinja"}:
            (destination / file.name).write_bytes(file.read_bytes())
