"""A copy of a model that was trained a little further, which a provider may serve in its place.

    python benchmarks/evidence/tune.py FOLDER COPY [--seconds 10] [--device cuda]

The text: the sources of Python's standard library. COPY gets the model, and in about.json how it was trained and how
far its weights moved.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from train import library, train
from transformers import AutoModelForCausalLM, AutoTokenizer

RATE = 1e-5
"""Of AdamW at its highest, as usual for fine-tuning all weights."""

ROWS = 8
"""Of 512 tokens in a step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if (args.copy / "about.json").exists():
        sys.exit(0)
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    ids = tokenizer(library(2), add_special_tokens=False, verbose=False)["input_ids"]
    tokens = torch.tensor([i for text in ids for i in text], dtype=torch.int32)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).to(args.device)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    about = train(model, tokens, args.seconds, RATE, 1, rows=ROWS)
    moved = [
        ((weight.detach() - before[name]).norm() / before[name].norm()).item()
        for name, weight in model.named_parameters()
        if name.endswith("_proj.weight")
    ]
    about["distance"] = sum(moved) / len(moved)
    args.copy.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(args.copy)
    for path in args.folder.iterdir():
        if path.is_file() and not (args.copy / path.name).exists():
            shutil.copy(path, args.copy)
    shutil.copy(args.folder / "config.json", args.copy)
    (args.copy / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about), flush=True)


if __name__ == "__main__":
    main()
