"""A model's output head apart from the engine's steps, on any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from sglang.srt.runtime_context import get_parallel

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN: Final = ("UnquantizedEmbeddingMethod", "UnquantizedLinearMethod")
"""Of what a head computes with: its weight as it stands (sglang/srt/layers/quantization/unquant.py)."""


class Head:
    """From hidden states [n, hidden] to logits [n, vocabulary]. See `examine.examiner.Head`."""

    def __init__(self, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._logits = logits

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return self._logits(states)

    def fits(self, adapter: int | None) -> bool:
        """Adapters may change the head, so there is none with them (`make_head`)."""
        return adapter is None


def make_head(runner: Any) -> Head | None:
    """None where the head is no plain matrix on one rank: other than in the engine's steps, ranks cannot gather, and
    adapters are those of the running batch."""
    model = runner.model
    layer, processor = getattr(model, "lm_head", None), getattr(model, "logits_processor", None)
    if layer is None or processor is None or get_parallel().tp_size > 1 or hasattr(layer, "set_lora"):
        return None
    method = getattr(layer, "quant_method", None)
    plain = method is None or type(method).__name__ in PLAIN
    wide = getattr(processor, "use_fp32_lm_head", False) or getattr(processor, "use_fp32_lm_head_output", False)
    if not plain or wide or getattr(layer, "bias", None) is not None or not hasattr(layer, "weight"):
        return None
    vocabulary = int(runner.model_config.vocab_size)
    scale, cap = processor.logit_scale, processor.final_logit_softcapping

    def logits(states: torch.Tensor) -> torch.Tensor:
        """As `LogitsProcessor._get_logits` on one rank (sglang/srt/layers/logits_processor.py)."""
        product = torch.matmul(states.to(layer.weight.dtype), layer.weight.T)[..., :vocabulary]
        if scale is not None:
            product = product * scale
        return cap * torch.tanh(product / cap) if cap else product

    return Head(logits)
