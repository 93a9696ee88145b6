"""GPU tests run where vLLM for CUDA is: `make test-gpu`. Their model is random, and wide like a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of hidden size 2048 and 8 layers with random weights, and the bundled model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("wide")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "toploc-mini")
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="bfloat16",
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(path)
    return path
