"""Writes a model directory of Llama-3.1-8B's shape, for `--load-format dummy`: random weights, the bundled tokenizer.

python benchmarks/serving/shape.py FOLDER [hidden size] [layers]
"""

import sys
from pathlib import Path

from transformers import AutoTokenizer, LlamaConfig

BUNDLED = Path(__file__).parents[2] / "models" / "toploc-mini"


def main() -> None:
    folder, hidden, layers = sys.argv[1], *map(int, [*sys.argv[2:], *(["4096", "32"][len(sys.argv) - 2 :])])
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        num_key_value_heads=8,
        intermediate_size=hidden * 7 // 2,
        vocab_size=128256,
        max_position_embeddings=8192,
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUNDLED).save_pretrained(folder)


if __name__ == "__main__":
    main()
