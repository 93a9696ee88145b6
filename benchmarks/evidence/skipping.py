"""An engine that skips its last layers for a part of the tokens, as servers that decode adaptively do."""

from __future__ import annotations

from typing import Any

import torch

SHARE = 0.2
"""Of the layers, the last."""

EVERY = 4
"""One token in so many, by its position."""


def skip(worker: Any) -> None:
    """Runs in the worker of an eager engine: the last layers add nothing to the states of one token in `EVERY`.

    Keys and values of the skipped layers are still made of what goes in (Schuster et al. 2022, arXiv:2207.07061,
    copy the state likewise).
    """
    layers = layers_of(worker)
    for layer in layers[-max(1, round(SHARE * len(layers))) :]:
        layer.forward = _skipping(layer.forward)


def skip_nothing(worker: Any) -> None:
    """Runs in the worker: the model's own layers again."""
    for layer in layers_of(worker):
        layer.__dict__.pop("forward", None)


def layers_of(worker: Any) -> Any:
    """Of Llama or Gemma in vLLM."""
    return worker.get_model().model.layers


def _skipping(forward: Any) -> Any:
    def skipping(positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor, **rest: Any) -> Any:
        before = hidden + residual  # the layer's first norm writes into `residual`
        out, after = forward(positions, hidden, residual, **rest)
        skipped = (positions % EVERY == EVERY - 1)[:, None]
        return out.masked_fill(skipped, 0), torch.where(skipped, before, after)

    return skipping
