"""The rows of each engine: honest answers, and what alters them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import skipping
import weights
from questions import CHANGES
from records import LONG
from transformers_engine import TransformersEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

HONEST, ALTERED = "honest", "altered"
ALTERED_FROM = 100_000
"""Questions of altered rows begin here: no honest row has them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: how answers are made, from question number `first` on.

    `alter`: of the weights; `patch`: runs in the engine's worker before, and `restore` after. `share` of the answers
    that were asked for; `cached`: prompts are asked twice; `long`: answers of `--long` tokens; `points`: their points
    are kept where `--points` says.
    """

    name: str
    kind: str
    first: int
    alter: Callable[..., Any] | None = None
    patch: Callable[[Any], None] | None = None
    restore: Callable[[Any], None] | None = None
    change: str | None = None
    at_once: int = 256
    share: float = 1.0
    cached: bool = False
    long: bool = False
    points: bool = False
    every_verifier: bool = False


def honest_kinds(engine: str) -> list[Kind]:
    """No two have a question in common, if 256 answers were asked for at most."""
    if engine == "graphs":
        graphs = "CUDA graphs"
        return [
            Kind(f"{graphs}, 64 at once", HONEST, 0, at_once=64, points=True, every_verifier=True),
            Kind(f"{graphs}, 256 at once", HONEST, 256, points=True),
            Kind(f"{graphs}, 64 at once, prompts in the prefix cache", HONEST, 512, at_once=64, share=0.5, cached=True),
            Kind(f"{graphs}, 16 at once", HONEST, 640, at_once=16, share=0.25),
            Kind(f"{graphs}, 1 at once", HONEST, 704, at_once=1, share=0.04),
        ]
    if engine == "eager":
        return [Kind("eager, prefill in chunks of 128, 64 at once", HONEST, 720, at_once=64, points=True)]
    if engine == "triton":
        return [Kind("eager, Triton attention, 64 at once", HONEST, 976, at_once=64, share=0.5)]
    if engine == "transformers":
        return [Kind("transformers, decoding with a cache", HONEST, 1104, every_verifier=True)]
    return []


def long_kinds(engine: str) -> list[Kind]:
    """Rows of long answers, half as many as of others."""
    rows: dict[str, Callable[..., Any] | None] = {}
    if engine == "graphs":
        rows = {"CUDA graphs, 64 at once": None, "int8 weights": weights.int8, "weights rounded to fp8": weights.fp8}
    if engine == "fp8-kv":
        rows = {ENGINES[engine]: lambda base: base.items()}
    return [
        Kind(
            f"{name}{LONG}",
            ALTERED if alter else HONEST,
            70 * ALTERED_FROM + 128 * number,
            alter,
            at_once=64,
            share=0.5,
            long=True,
        )
        for number, (name, alter) in enumerate(rows.items())
    ]


ENGINES = {
    "fp8": "fp8 weights and activations",
    "fp8-kv": "fp8 KV cache",
    "int8-kv": "int8 KV cache",
    "rope": "RoPE scaled by 2",
    "window": "attention within 256 tokens",
}
"""Rows that take an engine of their own."""


def altered_kinds(engine: str, folder: Path) -> list[Kind]:
    """Those that matter most come first."""
    if engine in ENGINES:
        first = ALTERED_FROM * (51 + list(ENGINES).index(engine))
        return [Kind(ENGINES[engine], ALTERED, first, points=engine == "fp8-kv")]
    if engine == "eager":
        name, change = "last fifth of layers skipped for every fourth token", (skipping.skip, skipping.skip_nothing)
        return [Kind(name, ALTERED, 61 * ALTERED_FROM, patch=change[0], restore=change[1], at_once=64)]
    if engine == "triton":
        return []
    found = [
        Kind("int8 weights", ALTERED, 0, weights.int8, points=True),
        Kind("weights rounded to fp8", ALTERED, 0, weights.fp8, points=True),
        Kind("int4 weights", ALTERED, 0, weights.int4),
        Kind("random adapter of rank 8, distance 0.3%", ALTERED, 0, weights.lora(8, 0.003)),
        Kind("int4 weights, groups of 128", ALTERED, 0, weights.int4_groups),
        *(Kind(change, ALTERED, 0, change=change) for change in CHANGES),
        Kind("NF4 weights", ALTERED, 0, weights.nf4),
        Kind("2 % of attention heads pruned", ALTERED, 0, _pruned(folder, 0.02)),
        Kind("MXFP4 weights", ALTERED, 0, weights.mxfp4),
        Kind("random adapter of rank 8, distance 0.1%", ALTERED, 0, weights.lora(8, 0.001)),
        Kind("one attention head pruned", ALTERED, 0, _pruned(folder, 0)),
        Kind("one layer left out", ALTERED, 0, weights.without_layer),
    ]
    return [replace(kind, first=ALTERED_FROM * (number + 1)) for number, kind in enumerate(found)]


def copied_kinds(engine: str, copies: Path, device: str) -> list[Kind]:
    """Copies that were trained further or anew, and steps towards the first; random steps where there is none."""
    if engine not in ("graphs", "transformers"):
        return []
    found = _tuned(copy_of(copies / "tuned", device))
    if other := copy_of(copies / "other", device):
        found.append(Kind("another seed", ALTERED, 0, lambda _: other.items()))
    return [replace(kind, first=ALTERED_FROM * (number + 31)) for number, kind in enumerate(found)]


def _tuned(tuned: dict[str, torch.Tensor] | None) -> list[Kind]:
    """A fine-tuned copy, and steps towards it; random steps where there is none."""
    found = []
    for distance in weights.DISTANCES:
        alter = weights.towards(tuned, distance) if tuned else weights.at_random(distance)
        what = "fine-tuned" if tuned else "weights changed at random"
        found.append(Kind(f"{what}, distance {distance:.1%}", ALTERED, 0, alter))
    if tuned:
        found.insert(0, Kind("fine-tuned copy", ALTERED, 0, lambda _: tuned.items()))
    return found


def _pruned(folder: Path, share: float) -> Callable[..., Any]:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    heads = config["num_attention_heads"] * config["num_hidden_layers"]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return weights.pruned_heads(head, max(1, round(share * heads)))


def copy_of(folder: Path, device: str) -> dict[str, torch.Tensor] | None:
    return TransformersEngine.load(str(folder), device).weights() if (folder / "config.json").exists() else None
