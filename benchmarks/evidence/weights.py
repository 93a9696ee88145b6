"""Alterations of a Llama's weights, by name as transformers has them, on the device where they lie."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import quantisers
import torch

sys.path.append(str(Path(__file__).parents[2]))

from models.alter import rounded, rounded_fp8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Weights = Mapping[str, torch.Tensor]

LAYER = re.compile(r"\.layers\.(\d+)\.")
DISTANCES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Relative changes of weights, ‖W' - W‖ / ‖W‖ for every matrix."""


def int8(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Linear weights rounded to 8 bits, per output channel."""
    return _linear(weights, lambda w: rounded(w, 8))


def int4(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Linear weights rounded to 4 bits, per output channel."""
    return _linear(weights, lambda w: rounded(w, 4))


def fp8(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Linear weights rounded to float8 e4m3, per output channel; activations stay as they are."""
    return _linear(weights, rounded_fp8)


def int4_groups(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Linear weights in 4 bits by groups of 128, as AWQ and GPTQ keep them."""
    return _linear(weights, quantisers.int4_groups)


def nf4(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Linear weights in bitsandbytes' NormalFloat of 4 bits."""
    return _linear(weights, quantisers.nf4)


def mxfp4(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Linear weights in microscaling floats of 4 bits."""
    return _linear(weights, quantisers.mxfp4)


def lora(rank: int, distance: float, seed: int = 0) -> Callable[[Weights], Iterator[tuple[str, torch.Tensor]]]:
    """Every linear weight with B A of a rank added, at random, ‖B A‖ = distance ‖W‖ (Hu et al. 2021,
    arXiv:2106.09685)."""

    def alter(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        for place, (name, weight) in enumerate(weights.items()):
            if not name.endswith("_proj.weight"):
                yield name, weight
                continue
            generator = torch.Generator(weight.device).manual_seed(1000 * seed + place)
            b = torch.randn(weight.shape[0], rank, generator=generator, device=weight.device)
            a = torch.randn(rank, weight.shape[1], generator=generator, device=weight.device)
            step = b @ a
            yield name, (weight.float() + distance * weight.float().norm() / step.norm() * step).to(weight.dtype)

    return alter


def pruned_heads(head: int, count: int) -> Callable[[Weights], Iterator[tuple[str, torch.Tensor]]]:
    """Without the `count` attention heads, each of `head` channels, whose columns in `o_proj` weigh least of all."""

    def alter(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        norms = {
            (name, place): norm
            for name, weight in weights.items()
            if name.endswith("self_attn.o_proj.weight")
            for place, norm in enumerate(weight.float().unflatten(1, (-1, head)).norm(dim=(0, 2)).tolist())
        }
        least = sorted(norms, key=lambda key: norms[key])[:count]
        for name, weight in weights.items():
            places = [place for of, place in least if of == name]
            if places:
                weight = weight.clone()
                weight.unflatten(1, (-1, head))[:, places] = 0
            yield name, weight

    return alter


def without_layer(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """The middle layer adds nothing to the residual stream, which is what a model without it computes."""
    layers = 1 + max(int(match[1]) for match in map(LAYER.search, weights) if match)
    silent = tuple(f".layers.{layers // 2}.{end}.weight" for end in ("self_attn.o_proj", "mlp.down_proj"))
    return ((name, torch.zeros_like(w) if name.endswith(silent) else w) for name, w in weights.items())


def towards(other: Weights, distance: float) -> Callable[[Weights], Iterator[tuple[str, torch.Tensor]]]:
    """Every tensor moved by `distance` of its own norm in the direction of another model's."""

    def alter(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in weights.items():
            step = other[name].to(weight.device).float() - weight.float()
            scale = distance * weight.float().norm() / step.norm().clamp_min(1e-12)
            yield name, (weight.float() + scale * step).to(weight.dtype)

    return alter


def at_random(distance: float, seed: int = 0) -> Callable[[Weights], Iterator[tuple[str, torch.Tensor]]]:
    """Every tensor moved by `distance` of its own norm in a random direction."""

    def alter(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        for place, (name, weight) in enumerate(weights.items()):
            generator = torch.Generator(weight.device).manual_seed(1000 * seed + place)
            step = torch.randn(weight.shape, generator=generator, device=weight.device)
            scale = distance * weight.float().norm() / step.norm()
            yield name, (weight.float() + scale * step).to(weight.dtype)

    return alter


def _linear(weights: Weights, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    return (
        (name, change(w.float()).to(w.dtype) if name.endswith("_proj.weight") else w) for name, w in weights.items()
    )
