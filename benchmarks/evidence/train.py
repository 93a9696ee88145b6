"""Trains a small Llama, continues it on other text, and trains a second one from another seed.

    python benchmarks/evidence/train.py FOLDER [--hidden 512] [--layers 8] [--seconds 100] [--device cuda]

The text: the sources of Python's standard library, its reference manual, and the bundled model's corpus, in the bundled
tokenizer, all of which any machine has. FOLDER gets the model, in FOLDER/tuned the one that was trained further on the
corpus alone, in FOLDER/other the one from another seed, and in about.json what was trained and how large its channels
are.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from questions import ROOT, WORDS
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.append(str(ROOT))

from models.corpus import documents
from models.packing import render

BUNDLED = ROOT / "models" / "toploc-mini"
LENGTH, ROWS = 512, 32
PEAK, WARMUP = 1e-3, 50
TUNING = 2e-4
MEGABYTES = 12
"""Of sources of the standard library."""
SHARES = {"model": 0.62, "tuned": 0.08, "other": 0.3}
"""Of the time."""


def library(megabytes: int = MEGABYTES) -> list[str]:
    """Sources of Python's standard library, in a shuffled order."""
    rng, found, size = Random(0), [], 0
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    rng.shuffle(files)
    for file in files:
        if not {"site-packages", "dist-packages"} & set(file.parts) and size < megabytes * 2**20:
            found.append(file.read_text("utf-8", errors="ignore"))
            size += len(found[-1])
    return found


def corpora(tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of everything, and of the bundled model's corpus alone."""
    chats = [render(tokenizer, document) for document in documents(5_000, 3)]
    manual = " ".join(WORDS)

    def tokens(texts: list[str]) -> torch.Tensor:
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return torch.tensor([i for text in ids for i in text], dtype=torch.int16)

    chat = tokens(chats)
    return torch.cat([tokens([*library(), manual]), chat]), chat


def train(model: Any, tokens: torch.Tensor, seconds: float, peak: float, seed: int, rows: int = ROWS) -> dict[str, Any]:
    """Steps of next-token prediction until the time is over; the rate falls with the time."""
    device = model.device
    generator = torch.Generator().manual_seed(seed)
    steps_of = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    began, step, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / seconds) < 1 or step < 2:
        rate = peak * min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * min(done, 1.0))) + 0.01)
        for group in steps_of.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(tokens) - LENGTH - 1, (rows,), generator=generator)
        batch = torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()]).long().to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps_of.step()
        steps_of.zero_grad(set_to_none=True)
        step += 1
        if step % 20 == 0 or step < 3:
            losses.append(round(loss.item(), 3))
    return {"steps": step, "tokens": step * rows * LENGTH, "first_loss": losses[0], "last_loss": losses[-1]}


@torch.inference_mode()
def channels(model: LlamaForCausalLM, tokens: torch.Tensor) -> dict[str, float]:
    """How unequal the channels of the final norm's output are, over 64 chunks of 32 tokens."""
    starts = torch.arange(16) * ((len(tokens) - LENGTH) // 16)
    batch = torch.stack([tokens[start : start + 128] for start in starts.tolist()]).long().to(model.device)
    states = model.base_model(input_ids=batch).last_hidden_state.float().reshape(-1, 32, model.config.hidden_size)
    power = states.pow(2).mean((0, 1)).sqrt()
    top = states.abs().flatten(1).topk(128).indices % model.config.hidden_size
    counts = torch.bincount(top.flatten(), minlength=model.config.hidden_size).sort(descending=True).values
    return {
        "largest channel over median": round((power.max() / power.median()).item(), 1),
        "points in 6 channels": round((counts[:6].sum() / counts.sum()).item(), 3),
        "kurtosis": round((states.pow(4).mean() / states.pow(2).mean().pow(2)).item(), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if (args.folder / "about.json").exists():
        sys.exit(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED)
    everything, chat = corpora(tokenizer)
    print(f"{len(everything):,} tokens of text", flush=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 11 // 4 // 64 * 64,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=args.hidden // 128,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    about: dict[str, Any] = {"hidden": args.hidden, "layers": args.layers}

    def save(name: str, model: LlamaForCausalLM) -> None:
        folder = args.folder if name == "model" else args.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
        model.config.dtype = "bfloat16"
        model.save_pretrained(folder, state_dict=state)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(BUNDLED / file, folder / file)

    torch.manual_seed(1)
    model = LlamaForCausalLM(config).to(args.device)
    about["parameters"] = sum(p.numel() for p in model.parameters())
    about["model"] = train(model, everything, SHARES["model"] * args.seconds, PEAK, 1)
    about["channels"] = channels(model, everything)
    save("model", model)
    about["tuned"] = train(model, chat, SHARES["tuned"] * args.seconds, TUNING, 2)
    save("tuned", model)
    torch.manual_seed(2)
    other = LlamaForCausalLM(config).to(args.device)
    about["other"] = train(other, everything, SHARES["other"] * args.seconds, PEAK, 3)
    save("other", other)
    (args.folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about), flush=True)


if __name__ == "__main__":
    main()
