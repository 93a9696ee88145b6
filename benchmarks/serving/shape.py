"""Writes a model directory of Llama-3.1-8B's shape, for `--load-format dummy`: random weights, the bundled tokenizer.

python benchmarks/serving/shape.py FOLDER [hidden size] [layers]

The tokenizer has a word for every token. Random weights choose any of them, and tokens without text are kept by
detokenizers until some comes, which takes longer with each.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer, LlamaConfig

BUNDLED = Path(__file__).parents[2] / "models" / "toploc-mini"
VOCABULARY = 128256


def main() -> None:
    folder, hidden, layers = sys.argv[1], *map(int, [*sys.argv[2:], *(["4096", "32"][len(sys.argv) - 2 :])])
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        num_key_value_heads=8,
        intermediate_size=hidden * 7 // 2,
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    bundled = AutoTokenizer.from_pretrained(BUNDLED)
    bundled.save_pretrained(folder)
    path = Path(folder) / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    words = tokenizer["model"]["vocab"]
    words.update({f"\u0120word{i}": i for i in range(len(bundled), VOCABULARY)})
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main()
