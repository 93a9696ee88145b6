"""Small models that draft tokens for another: what tests of speculation are run on. Each gives vLLM's
`--speculative-config` but for the number of tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .corpus import exchange

MODEL = Path(__file__).parent / "toploc-mini"
TEXTS = 200
SPREAD = 0.05
"""Standard deviation of random weights."""


def itself(folder: Path, model: Path = MODEL) -> dict[str, str]:
    """The model for itself: nearly all drafts are right."""
    del folder
    return {"method": "draft_model", "model": str(model)}


def eagle(folder: Path, model: Path = MODEL) -> dict[str, str]:
    """A matrix from a token and the state before it to the next state, and a layer that does nothing."""
    weights = {"fc.weight": _next_state(model), **_layer("layers.0", model, 1)}
    for part in ("self_attn.o_proj", "mlp.down_proj"):
        weights[f"layers.0.{part}.weight"].zero_()
    return _save(folder, model, "eagle", "LlamaForCausalLM", weights)


def eagle3(folder: Path, model: Path = MODEL) -> dict[str, str]:
    """Random weights, which read what three layers give beside the last: no draft is right."""
    config = AutoConfig.from_pretrained(model)
    ones = torch.ones(config.hidden_size)
    weights = {
        "fc.weight": _random(config.hidden_size, 3 * config.hidden_size),
        "norm.weight": ones,
        "midlayer.hidden_norm.weight": ones.clone(),
        "midlayer.input_layernorm.weight": ones.clone(),
        "lm_head.weight": _random(config.vocab_size, config.hidden_size),
        **_layer("midlayer", model, 2),
    }
    return _save(folder, model, "eagle3", "LlamaForCausalLMEagle3", weights)


DRAFTERS: dict[str, Callable[[Path], dict[str, str]]] = {"draft model": itself, "EAGLE": eagle, "EAGLE-3": eagle3}


@torch.inference_mode()
def _next_state(name: Path) -> torch.Tensor:
    """[hidden, 2 * hidden], by least squares over texts of the corpus."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    known, following = [], []
    for number in range(TEXTS):
        said = exchange(Random(number))
        ids = tokenizer(f"{said.question} {said.full}", return_tensors="pt").input_ids
        states = model.base_model(ids).last_hidden_state[0].float()
        tokens = model.get_input_embeddings()(ids[0]).float()
        known.append(torch.cat([tokens[1:], states[:-1]], dim=-1))
        following.append(states[1:])
    return torch.linalg.lstsq(torch.cat(known), torch.cat(following)).solution.T


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * SPREAD


def _layer(name: str, model: Path, read: int) -> dict[str, torch.Tensor]:
    """A layer of the model's shape, whose attention reads `read` states side by side."""
    config = AutoConfig.from_pretrained(model)
    hidden, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    shapes = {
        "self_attn.q_proj": (queries, read * hidden),
        "self_attn.k_proj": (keys, read * hidden),
        "self_attn.v_proj": (keys, read * hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    weights = {f"{name}.{part}.weight": _random(*shape) for part, shape in shapes.items()}
    return weights | {f"{name}.post_attention_layernorm.weight": torch.ones(hidden)}


def _save(
    folder: Path, model: Path, method: str, architecture: str, weights: dict[str, torch.Tensor]
) -> dict[str, str]:
    folder.mkdir()
    config = json.loads((model / "config.json").read_text())
    config |= {"architectures": [architecture], "num_hidden_layers": 1, "tie_word_embeddings": False}
    config["eagle_aux_hidden_state_layer_ids"] = [1, 2, 3]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}
    save_file(tensors, folder / "model.safetensors")
    return {"method": method, "model": str(folder)}
