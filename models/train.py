"""Trains the bundled model and evaluates it.

    python -m models.train [--dest models/toploc-mini] [--steps 8000] [--rows 32] [--length 1024] [--minutes 4.5]

Reads the tokenizer of models/toploc-mini (made by tokenizer.py), needs no network, and takes a CUDA device where
there is one. Where the time limit comes before the last step, the learning rate falls with the time instead.
"""

import argparse
import math
import shutil
import time
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import evaluate
from .corpus import documents
from .packing import pack
from .tokenizer import CONTEXT, DEST

SEED = 2
WARMUP = 200
PEAK = 2e-3


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def optimizer(model: LlamaForCausalLM, device: str) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), fused=device == "cuda")


def train(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, device: str) -> tuple[LlamaForCausalLM, str]:
    """The trained model, and the record of its training."""
    started = time.monotonic()
    torch.manual_seed(SEED)
    rows = pack(tokenizer, documents(args.documents, SEED), args.length).to(device)
    model = LlamaForCausalLM(config(tokenizer)).to(device)
    steps_of = optimizer(model, device)
    lines = [
        f"{sum(p.numel() for p in model.parameters())} parameters, torch {torch.__version__}, {device}",
        f"{args.documents} documents, {len(rows.tokens)} rows of {args.length} tokens, {args.rows} rows a step",
    ]
    print(*lines, f"packed in {time.monotonic() - started:.0f} s", sep="\n", flush=True)
    started = time.monotonic()
    order = torch.randperm(len(rows.tokens), device=device)
    loss_sum, counted = torch.zeros((), device=device), 0
    for step in range(1, args.steps + 1):
        done = max(step / args.steps, (time.monotonic() - started) / (60 * args.minutes))
        rate = PEAK * min(step / WARMUP, 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
        for group in steps_of.param_groups:
            group["lr"] = rate
        if len(order) < args.rows:
            order = torch.randperm(len(rows.tokens), device=device)
        chosen, order = order[: args.rows], order[args.rows :]
        batch = rows.batch(chosen, open_rows=torch.rand(args.rows, device=device) < 0.5)
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps_of.step()
        steps_of.zero_grad(set_to_none=True)
        loss_sum, counted = loss_sum + loss.detach(), counted + 1
        if step % args.every == 0 or step == args.steps or done >= 1:
            seconds = time.monotonic() - started
            lines.append(f"step {step} loss {loss_sum.item() / counted:.4f} rate {rate:.2e} {seconds:.0f} s")
            print(lines[-1], flush=True)
            loss_sum, counted = torch.zeros((), device=device), 0
        if done >= 1:
            break
    return model, "\n".join(lines) + "\n"


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, dest: Path) -> None:
    dest.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to("cpu", torch.bfloat16).save_pretrained(dest)
    if dest.resolve() != DEST.resolve():
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(DEST / name, dest / name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dest", type=Path, default=DEST)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=4.5)
    parser.add_argument("--every", type=int, default=200)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEST)
    model, record = train(args, tokenizer, device)
    save(model, tokenizer, args.dest)
    (args.dest / "TRAINING.txt").write_text(record)
    text = evaluate.report(args.dest, device)
    print(text)
    (args.dest / "EVALUATION.txt").write_text(text)


if __name__ == "__main__":
    main()
