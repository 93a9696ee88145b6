"""A model's output head as one worker applies it, on any thread, apart from the engine's steps.

The model's own `compute_logits` is collective with tensor parallelism, and with LoRA adds the adapters of the running
batch. Both happen in its `LogitsProcessor` (vllm/model_executor/layers/logits_processor.py,
vllm/lora/layers/logits_processor.py), so a view of the model, which shares its weights, has another in that place.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from vllm.distributed import tensor_model_parallel_gather
from vllm.lora.layers import LogitsProcessorWithLoRA
from vllm.model_executor.layers.logits_processor import LogitsProcessor

from ...log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllm.config import ModelConfig, VllmConfig

PLAIN: Final = ("UnquantizedEmbeddingMethod", "UnquantizedLinearMethod")
"""Of what a head computes with: its weight as it stands (vllm/model_executor/layers)."""


class Head:
    """From hidden states [n, hidden] to logits [n, vocabulary].

    Args:
        logits: computes them.
        changes: whether the adapter of this number changes the head.
        copied: a part of the copy that logits are computed with, and the layer whose weight it was.
    """

    def __init__(
        self,
        logits: Callable[[torch.Tensor], torch.Tensor],
        *,
        changes: Callable[[int], bool] = lambda _: False,
        copied: tuple[torch.Tensor, Any] | None = None,
    ) -> None:
        self._logits = logits
        self._changes = changes
        self._copied = copied

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return self._logits(states)

    @property
    def num_bytes(self) -> int:
        """Of the copy."""
        return 0 if self._copied is None else self._copied[0].untyped_storage().nbytes()

    def fits(self, adapter: int | None) -> bool:
        """Whether the logits are now the model's under this adapter: it leaves the head alone, and since the head was
        copied no other weights were loaded."""
        if adapter is not None and self._changes(adapter):
            return False
        return self._copied is None or torch.equal(self._copied[0], self._copied[1].weight)


@torch.inference_mode()
def make_head(
    model: Any, config: VllmConfig, *, copied: bool, adapters: Callable[[], Mapping[int, Any]] | None
) -> Head | None:
    """The head of a model whose weights are loaded, None where it has none apart from the engine's steps.

    Every rank of a tensor-parallel group has to call it. With `copied` the first of them gets a head, which holds the
    whole weight. `adapters`: those that are loaded, by number; None without LoRA.
    """

    def changes(adapter: int) -> bool:
        loaded = (adapters or dict)().get(adapter)
        # Its modules by name (vllm/lora/lora_model.py). One that is gone may have been anything.
        return loaded is None or any(name.rpartition(".")[2] == "lm_head" for name in loaded.loras)

    if config.parallel_config.tensor_parallel_size == 1:
        apart = adapters is not None or next(model.parameters()).device.type == "cpu"
        logits = (_view(model, _Apart) if apart else model).compute_logits
        return Head(logits, changes=changes)
    if not copied:
        return None
    try:
        layer = _find_layer(model, config.model_config)
    except Exception as error:
        # Models are many, and each calls its logits processor as it likes; all ranks come to the same.
        logger.warning("toploc: no copy of the output head, so the check on tokens is skipped: %s", error)
        return None
    whole = tensor_model_parallel_gather(layer.weight.data, dim=0)
    own = model.compute_logits(_probe(model, config.model_config)) if adapters is None else None
    if whole is None:
        return None
    logits = _view(model, lambda base: _Apart(base, whole)).compute_logits
    if own is not None and not _alike(own, logits(_probe(model, config.model_config))):
        logger.warning("toploc: the copy of the output head gives other logits, so the check on tokens is skipped")
        return None
    return Head(logits, changes=changes, copied=(whole[: layer.weight.shape[0]], layer))


class _Apart(nn.Module):
    """In place of a logits processor: what it computes, of the whole weight if one is given."""

    def __init__(self, base: LogitsProcessor, whole: torch.Tensor | None = None) -> None:
        super().__init__()
        self._base = copy.copy(base)
        # What is left to do with logits: soft caps and scales.
        self._after = copy.copy(base)
        self._after.logits_as_input = True
        self._whole = whole

    def forward(self, layer: Any, states: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor | None:
        layer = getattr(layer, "base_layer", layer)
        weight = self._whole
        if weight is None and _shares_memory(layer):
            weight = layer.weight
        if weight is None:
            of_base: torch.Tensor | None = self._base(layer, states, bias)
            return of_base
        # Padding of the vocabulary is at the end.
        product = torch.nn.functional.linear(states, weight, bias)[..., : self._base.org_vocab_size]
        logits: torch.Tensor | None = self._after(layer, product)
        return logits


def _shares_memory(layer: Any) -> bool:
    """Whether the layer's own product must not run beside the engine's. On a CPU vLLM 0.32 has one scratchpad for all
    threads (csrc/cpu/dnnl_helper.cpp): two at once give wrong numbers or end the process."""
    weight = layer.weight
    return weight.device.type == "cpu" and weight.numel() > 0 and type(layer.quant_method).__name__ in PLAIN


class _Asked(nn.Module):
    """In place of a logits processor: keeps what it is called with."""

    def __init__(self, base: LogitsProcessor) -> None:
        super().__init__()
        self.dtype = base.head_dtype
        self.calls: list[tuple[Any, Any]] = []

    def forward(self, layer: Any, states: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        self.calls.append((getattr(layer, "base_layer", layer), bias))
        return states


def _find_layer(model: Any, config: ModelConfig) -> Any:
    """The layer that the model hands to its logits processor. Raises ValueError for one that cannot be copied."""
    asked: list[_Asked] = []

    def ask(base: LogitsProcessor) -> _Asked:
        asked.append(_Asked(base))
        return asked[-1]

    view = _view(model, ask)
    view.compute_logits(_probe(model, config))
    called = [(layer, bias, one.dtype) for one in asked for layer, bias in one.calls]
    if len(called) != 1:
        raise ValueError(f"the model calls {len(called)} logits processors")
    [(layer, bias, dtype)] = called
    method = type(layer.quant_method).__name__
    if method not in PLAIN or layer.tp_size == 1 or bias is not None or dtype not in (None, layer.weight.dtype):
        raise ValueError(f"it is no plain matrix that the ranks divide ({method})")
    return layer


def _probe(model: Any, config: ModelConfig) -> torch.Tensor:
    """Hidden states, the same on every rank."""
    states = torch.randn(4, config.get_hidden_size(), generator=torch.Generator().manual_seed(0))
    return states.to(next(model.parameters()).device, config.dtype)


def _alike(own: torch.Tensor, other: torch.Tensor) -> bool:
    return own.shape == other.shape and torch.allclose(own.float(), other.float(), rtol=0.02, atol=0.05)


def _view(model: Any, other: Callable[[LogitsProcessor], nn.Module]) -> Any:
    """The model with another module in place of each of its logits processors; everything else is shared."""
    if isinstance(model, LogitsProcessorWithLoRA):
        return other(model.base_layer)
    if isinstance(model, LogitsProcessor):
        return other(model)
    holds = any(isinstance(module, LogitsProcessor) for module in model.modules())
    if not holds:
        return model
    view = copy.copy(model)
    view._modules = {name: child and _view(child, other) for name, child in model._modules.items()}
    return view
