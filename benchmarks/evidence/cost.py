"""What verifying costs beside generating, and a proof's size beside what it stands for.

    python benchmarks/evidence/cost.py FOLDER --output cost.json [--batches 1 16 64 256]

One engine generates answers of 512 tokens to prompts of 128 with proofs, then verifies them by prefills, in process and
without HTTP. Stages are timed apart: the prefill, the top-k of its states, and the comparison with the proofs.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from questions import Question
from vllm_engine import VllmEngine

PROMPT_TOKENS = 128
TOPK = 128
PROOF_BYTES = 2 + 2 * TOPK


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(engine: VllmEngine, batch: int, tokens: int) -> dict[str, Any]:
    """Seconds for a batch of so many answers."""
    # In vLLM 0.32 a worker cannot start once numba is there (proxy/engines/vllm/runners/lifecycle.py).
    from toploc.proofs.chunks import state_points
    from toploc.proofs.format import decode_proof
    from toploc.proofs.verdict import verify_chunks
    from toploc.thresholds.bounds import Thresholds

    rng = random.Random(batch)
    questions = []
    for _ in range(batch):
        prompt = [rng.randrange(10, 500) for _ in range(PROMPT_TOKENS)]
        questions.append(Question(prompt, prompt, 1.0))
    began = clock()
    answers = engine.generate(questions, tokens, batch)
    generated = clock()
    engine.plain_prefill([[*answer.prompt, *answer.token_ids[:-1]] for answer in answers])
    plain = clock()
    states = engine.states([(answer.prompt, answer.token_ids) for answer in answers])
    prefilled = clock()
    points = [state_points(rows, TOPK) for rows in states]
    reduced = clock()
    paper = Thresholds.paper()
    passed = 0
    for answer, own in zip(answers, points, strict=True):
        proofs = [decode_proof(proof) for proof in answer.proofs]
        passed += verify_chunks(proofs, own, dtype="bfloat16", thresholds=paper).passed
    compared = clock()
    return {
        "batch": batch,
        "passed": passed,
        "generate": generated - began,
        "plain_prefill": plain - generated,
        "prefill": prefilled - plain,
        "top_k": reduced - prefilled,
        "compare": compared - reduced,
    }


def table(results: list[dict[str, Any]], hidden: int, tokens: int) -> str:
    lines = [
        f"Prompts of {PROMPT_TOKENS} tokens, answers of {tokens}, hidden size {hidden}; seconds.\n",
        "| answers at once | generate, with proofs | verify | ratio | prefill | plain prefill | top-k | compare |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        verify = r["prefill"] + r["top_k"] + r["compare"]
        stages = " | ".join(f"{r[name]:.4f}" for name in ("prefill", "plain_prefill", "top_k", "compare"))
        lines.append(
            f"| {r['batch']} | {r['generate']:.2f} | {verify:.4f} | **{r['generate'] / verify:.0f}** | {stages} |"
        )
    stored = 32 * hidden * 2
    lines.append(
        f"\nA chunk's states are {stored:,} bytes in bfloat16, its proof {PROOF_BYTES}: "
        f"{stored / PROOF_BYTES:,.0f} times less ({stored / 344:,.0f} times as base64)."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256, 16])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--kv-gb", type=float, default=24.0)
    parser.add_argument("--wait-for", type=Path, help="a file whose being there says that nothing else runs")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    args = parser.parse_args()
    options: dict[str, Any] = {"enforce_eager": args.eager, "max_num_batched_tokens": 8192}
    if torch.cuda.is_available():
        options |= {"gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": int(args.kv_gb * 2**30)}
    if not args.eager:
        options["compilation_config"] = {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 96, 128, 256]}
    engine = VllmEngine(args.folder, **options)
    print(f"engine up after {engine.seconds_to_start:.0f} s", flush=True)
    measure(engine, 2, 40)
    while args.wait_for and not args.wait_for.exists():
        time.sleep(0.2)
    measure(engine, 1, 40)
    hidden = json.loads((Path(args.folder) / "config.json").read_text())["hidden_size"]
    results: list[dict[str, Any]] = []
    for batch in args.batches:
        results.append(measure(engine, batch, args.tokens))
        results.sort(key=lambda result: result["batch"])
        text = table(results, hidden, args.tokens)
        args.output.write_text(json.dumps({"results": results, "table": text}, indent=1) + "\n")
        print(text, flush=True)


if __name__ == "__main__":
    main()
