"""What it costs to prove rollouts, and to verify them: rows and tokens a second, offline and by `toploc audit`.

    python benchmarks/rollouts/run.py [MODEL] [--rows 1000] [--tokens 128] [--audit] [--output FILE] [-- LLM options]

One `toploc_proxy.offline.LLM` makes the rollouts, sampled, of exactly so many tokens, and verifies them. Beside it
are plain prefills of the same token ids with `max_tokens` 1, by the same engine. Plain, verify, verify, plain, … so
that drift of the machine falls on both alike. With `--audit` the rollouts are then written as Parquet and verified by
one `toploc serve` and `toploc audit`. Without MODEL it is the bundled one. Options of the engine are `name=value`, as
`max_num_seqs=256`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toploc.arguments import positive, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toploc_proxy.offline import LLM, Rollout

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
VOCABULARY = 270, 400
"""Prompts are of these token ids: whole words, or parts, in the bundled tokenizer."""


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(MODEL))
    parser.add_argument("--rows", type=positive, default=1000)
    parser.add_argument("--prompt-tokens", type=positive, default=64)
    parser.add_argument("--tokens", type=positive, default=128)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--output", type=Path)
    ours, engines = split(arguments)
    args = parser.parse_args(ours)
    args.engine = {name: json.loads(value) for name, _, value in (word.partition("=") for word in engines)}
    return args


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    return {"temperature": 1.0, "max_tokens": args.tokens, "ignore_eos": True}


def generate(llm: LLM, args: argparse.Namespace) -> tuple[list[Rollout], float]:
    """Rollouts, and the seconds that they took."""
    from toploc_proxy.offline import Rollout
    from vllm import SamplingParams

    draw, params = random.Random(0), SamplingParams(**sampling(args))
    prompts = [[draw.randrange(*VOCABULARY) for _ in range(args.prompt_tokens)] for _ in range(args.rows)]
    began = time.monotonic()
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
    seconds = time.monotonic() - began
    return [Rollout.of(output, 0, params) for output in outputs], seconds


def prefill(llm: LLM, rollouts: Sequence[Rollout]) -> float:
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1, temperature=0, detokenize=False, skip_reading_prefix_cache=True)
    prompts = [{"prompt_token_ids": [*each.prompt_token_ids, *each.token_ids[:-1]]} for each in rollouts]
    began = time.monotonic()
    llm.generate(prompts, params, use_tqdm=False)
    return time.monotonic() - began


def verify(llm: LLM, rollouts: Sequence[Rollout]) -> float:
    began = time.monotonic()
    reports = llm.verify(rollouts)
    seconds = time.monotonic() - began
    assert all(report.accepted for report in reports), next(report for report in reports if not report.accepted)
    return seconds


def audit(args: argparse.Namespace, rollouts: Sequence[Rollout], folder: Path) -> float:
    """Seconds of `toploc audit`, from its start to its end, by a server that is there."""
    import pyarrow as pa
    from pyarrow import parquet
    from toploc_proxy.local_server import LocalServer

    rows = [
        {
            "prompt_token_ids": list(each.prompt_token_ids),
            "token_ids": list(each.token_ids),
            "toploc_proofs": each.proofs.to_json().decode(),  # type: ignore[union-attr]
            "finish_reason": each.finish_reason,
        }
        for each in rollouts
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "rollouts.parquet")
    flags = [part for name, value in args.engine.items() for part in flag(name, value)]
    serve = [args.model, *flags, "--toploc-role", "verifier"]
    with LocalServer(serve) as server:
        call = ["audit", str(folder / "rollouts.parquet"), "--verifier", server.url, "--out", str(folder / "report")]
        call += ["--sampling-params", json.dumps(sampling(args)), "--verdicts", "parquet"]
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "toploc", *call], check=True)
        return time.monotonic() - began


def flag(name: str, value: object) -> list[str]:
    """An option of `LLM` as one of `toploc serve`."""
    option = name.replace("_", "-")
    return [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]


def main(arguments: Sequence[str]) -> None:
    from toploc_proxy.offline import LLM

    args = options(arguments)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        with LLM(args.model, **args.engine) as llm:
            generate(llm, argparse.Namespace(**{**vars(args), "rows": min(args.rows, 32)}))
            rollouts, found["generate with proofs"] = generate(llm, args)
            work: dict[str, Callable[[LLM, Sequence[Rollout]], float]] = {"plain prefills": prefill, "verify": verify}
            for each in work.values():
                each(llm, rollouts[:32])
            names = [*work, *reversed(work)]
            seconds: dict[str, list[float]] = {name: [] for name in work}
            for place in range(2 * args.rounds):
                name = names[place % len(names)]
                seconds[name].append(work[name](llm, rollouts))
            found |= {name: statistics.median(taken) for name, taken in seconds.items()}
        if args.audit:
            found["toploc audit"] = audit(args, rollouts, Path(folder))
    show(args, found)


def show(args: argparse.Namespace, found: dict[str, float]) -> None:
    """Tokens are those of prompt and answer; of generation the answer's alone."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.processor() or 'x86-64'}"
    print(f"\n{device}: {args.rows:,} rows of {args.prompt_tokens} + {args.tokens} tokens\n")
    print("| | rows/s | tokens/s |\n| --- | --- | --- |")
    result: dict[str, Any] = {"device": device, "rows": args.rows}
    for name, seconds in found.items():
        tokens = args.tokens if name.startswith("generate") else args.prompt_tokens + args.tokens
        result[name] = {"rows_per_second": args.rows / seconds, "tokens_per_second": args.rows * tokens / seconds}
        print(f"| {name} | {args.rows / seconds:,.1f} | {args.rows * tokens / seconds:,.0f} |")
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
