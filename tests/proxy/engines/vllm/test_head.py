"""The output head apart from the engine's steps, which run at the same time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from toploc_proxy.engines.vllm.head import make_head
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.logits_processor import LogitsProcessor


class UnquantizedEmbeddingMethod:
    """vLLM's by name; its product on a CPU is not to be called from the examiner's thread."""

    def apply(self, *_: object, **__: object) -> torch.Tensor:
        raise AssertionError("the engine's own product, which shares its memory")


class Model(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.lm_head = nn.Linear(*weight.T.shape, bias=False, dtype=weight.dtype)
        self.lm_head.weight.data = weight
        self.lm_head.quant_method = UnquantizedEmbeddingMethod()
        self.logits_processor = LogitsProcessor(weight.shape[0], weight.shape[0] - 3, scale=0.5)

    def compute_logits(self, states: torch.Tensor) -> torch.Tensor | None:
        logits: torch.Tensor | None = self.logits_processor(self.lm_head, states)
        return logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_on_a_cpu_it_does_not_call_the_engines_own_product(dtype: torch.dtype) -> None:
    with set_current_vllm_config(VllmConfig()):
        model = Model(torch.randn(64, 16, dtype=dtype))
    states = torch.randn(5, 16, dtype=dtype)
    with pytest.raises(AssertionError, match="shares its memory"):
        model.compute_logits(states)
    config = SimpleNamespace(parallel_config=SimpleNamespace(tensor_parallel_size=1))
    head = make_head(model, config, copied=False, adapters=None)
    assert head is not None
    assert torch.equal(head(states), (states @ model.lm_head.weight.T)[:, :61] * 0.5)
