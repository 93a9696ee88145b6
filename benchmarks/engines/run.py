"""How far honest proofs of one engine lie from another's prefill.

    python benchmarks/engines/run.py [--answers 100] [--tokens 256] [--sglang .venv-sglang/bin/python] [--out FILE]

vLLM and SGLang each answer the same requests, sampled at temperature 1. Each answer is held against a prefill by both
servers (`POST /v1/toploc/verify`) and by transformers, under the paper's bounds. Run it with the Python that has vLLM.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from toploc_proxy.local_server import LocalServer

from toploc.proofs.verdict import verify_activations
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "toploc-mini"
NAME = "toploc-mini"
AT_ONCE = 8
TOPICS = ["a story", "the sea", "numbers", "a king", "what is", "17 + 25", "the sum of", "a letter", "rain", "tell me"]
FIGURES = ("mismatches", "mantissa_mean")
BOUNDS = ["--toploc-thresholds", "paper-bfloat16"]
VLLM = ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", "2048", "--kv-cache-memory-bytes", "256M"]
SGLANG = [
    *["--model-path", str(MODEL), "--served-model-name", NAME, "--device", "cpu"],
    *["--attention-backend", "torch_native", "--sampling-backend", "pytorch"],
    *["--max-total-tokens", "16384", "--max-running-requests", "16", "--sleep-on-idle"],
]


def servers(stack: ExitStack, python: str) -> dict[str, str]:
    """The address of each, by its engine's name."""
    standins = os.pathsep.join(filter(None, (str(ROOT / "tests/sglang/standins"), os.environ.get("PYTHONPATH"))))
    sglang = LocalServer(
        [*SGLANG, *BOUNDS],
        command=[python, "-m", "toploc", "sglang"],
        environment={"SGLANG_USE_CPU_ENGINE": "1", "PYTHONPATH": standins},
    )
    vllm = LocalServer([str(MODEL), *VLLM, *BOUNDS])
    return {name: stack.enter_context(server).url for name, server in (("vLLM", vllm), ("SGLang", sglang))}


def requests(count: int, tokens: int) -> list[dict[str, Any]]:
    dice = random.Random(0)
    return [
        {
            "model": NAME,
            "messages": [{"role": "user", "content": " ".join(dice.choices(TOPICS, k=dice.randint(1, 12)))}],
            "max_tokens": tokens,
            "temperature": 1.0,
            "ignore_eos": True,
            "toploc": {"prompt_token_ids": True},
        }
        for _ in range(count)
    ]


def asked(url: str, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with httpx.Client(base_url=url, timeout=600) as http, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda body: http.post(path, json=body).raise_for_status().json(), bodies))


def chunks_in(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the check `proofs` found of each chunk."""
    return [chunk for check in report["checks"] if check["name"] == "proofs" for chunk in check["figures"]["chunks"]]


def by_transformers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    prefill, bounds = TransformersPrefill(MODEL), Thresholds.load("paper-bfloat16")
    found = []
    for answer in answers:
        proofs = answer["toploc_proofs"]
        [choice] = proofs["choices"]
        states = prefill.hidden_states(proofs["prompt"]["token_ids"], choice["token_ids"])
        verdict = verify_activations(choice["proofs"], states, thresholds=bounds)
        found += [
            {**{name: getattr(chunk, name) for name in FIGURES}, "passed": chunk.passed} for chunk in verdict.chunks
        ]
    return found


def row(prover: str, verifier: str, answers: int, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    mismatches, means = (np.array([chunk[name] for chunk in chunks]) for name in ("mismatches", "mantissa_mean"))
    return {
        "prover": prover,
        "verifier": verifier,
        "answers": answers,
        "chunks": len(chunks),
        "mismatches, mean": round(float(mismatches.mean()), 2),
        "mismatches, 99 %": int(np.quantile(mismatches, 0.99, method="higher")),
        "mismatches, most": int(mismatches.max()),
        "mantissa mean, 99 %": round(float(np.quantile(means, 0.99, method="higher")), 2),
        "mantissa mean, most": round(float(means.max()), 2),
        "beyond the paper's": sum(not chunk["passed"] for chunk in chunks),
    }


def table(rows: list[dict[str, Any]]) -> str:
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(one[head]) for head in heads] for one in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100, help="of each engine")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--sglang", default=str(ROOT / ".venv-sglang" / "bin" / "python"), help="a Python with SGLang")
    parser.add_argument("--out", type=Path, help="a file for the rows, as JSON")
    args = parser.parse_args()
    bodies, rows, verdicts = requests(args.answers, args.tokens), [], []
    with ExitStack() as stack:
        urls = servers(stack, args.sglang)
        for prover, url in urls.items():
            answers = asked(url, "/v1/chat/completions", bodies)
            evidence = [{"request": body, "response": answer} for body, answer in zip(bodies, answers, strict=True)]
            for verifier, other in urls.items():
                reports = asked(other, "/v1/toploc/verify", evidence)
                chunks = [chunk for report in reports for chunk in chunks_in(report)]
                rows.append(row(prover, verifier, len(answers), chunks))
                failed = [c["reason"] for r in reports for c in r["checks"] if c["status"] == "failed"]
                undecided = sorted({c["reason"] for r in reports for c in r["checks"] if c["status"] == "undecided"})
                verdicts.append((prover, verifier, len(failed), failed[:3], undecided))
            rows.append(row(prover, "transformers", len(answers), by_transformers(answers)))
    print(table(rows))
    for prover, verifier, count, failed, undecided in verdicts:
        print(f"{verifier} on {prover}'s: {count} checks failed {failed}, undecided by {undecided}")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
