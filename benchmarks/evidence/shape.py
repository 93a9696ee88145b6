"""Writes a model of Llama-3.1-8B's shape with random weights, as its initialisation makes them.

python benchmarks/evidence/shape.py FOLDER [hidden size] [layers] [device]
"""

import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = Path(__file__).parents[1] / "serving" / "shape.py"


def main() -> None:
    folder, *size = sys.argv[1:]
    if (Path(folder) / "model.safetensors.index.json").exists() or (Path(folder) / "model.safetensors").exists():
        return
    subprocess.run([sys.executable, str(SHAPE), folder, *size[:2]], check=True)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(size[2] if len(size) > 2 else "cuda"):
        model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    model.save_pretrained(folder, max_shard_size="2GB")


if __name__ == "__main__":
    main()
