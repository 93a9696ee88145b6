"""What proofs cost a server: `toploc serve` against `vllm serve`, driven in turn by vLLM's own load generator.

    python benchmarks/serving/run.py MODEL [--pairs 5] [--concurrency 1 64 256] [--output FILE] [-- vllm serve flags]

Both servers are up the whole time, and one is driven while the other idles: A B B A A B …, so that drift of the machine
falls on both alike. Both sides of a pair get the same prompts and lengths, which vary by half, so that answers do not
all end in the same step. Figures are medians over pairs of the ratio proofs / plain, with the smallest and largest;
below them, how many answers had their proofs within so many milliseconds of their last token.

With `--seeds` both are `toploc serve`, "proofs" with `--toploc-seed-requests`, and answers are at temperature 1. With
`--one-server` both are one `toploc serve`, and "plain" are requests with `"toploc": {"enabled": false}`: no difference
between two servers counts, and an 8B model starts once.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from toploc_proxy.local_server import LocalServer
from vllm.benchmarks.serve import add_cli_args
from vllm.benchmarks.serve import main as bench
from vllm.utils.argparse_utils import FlexibleArgumentParser

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = [sys.executable, str(Path(__file__).with_name("plain.py"))]
FIGURES = {
    "request_throughput": "requests/s",
    "output_throughput": "output tokens/s",
    "p50_ttft_ms": "TTFT p50",
    "p99_ttft_ms": "TTFT p99",
    "p50_tpot_ms": "TPOT p50",
    "p99_tpot_ms": "TPOT p99",
    "p50_itl_ms": "ITL p50",
    "p99_itl_ms": "ITL p99",
}


def drive(
    server: LocalServer, model: str, concurrency: int, options: argparse.Namespace, seed: int, *, proofs: bool
) -> dict[str, Any]:
    """One run of `vllm bench serve`."""
    requests = max(options.rounds * concurrency, options.least_requests)
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    arguments = {
        "--backend": "vllm",
        "--base-url": server.url,
        "--model": "bench",
        "--tokenizer": model,
        "--dataset-name": "random",
        "--random-input-len": options.input_len,
        "--random-output-len": options.output_len,
        "--num-prompts": requests,
        "--max-concurrency": concurrency,
        "--num-warmups": min(concurrency, 16),
        "--percentile-metrics": "ttft,tpot,itl",
        "--metric-percentiles": "50,99",
        "--random-range-ratio": options.range_ratio,
        "--seed": seed,
    }
    flat = [str(part) for pair in arguments.items() for part in pair]
    if options.seeds:
        flat += ["--temperature", "1"]
    if options.one_server and not proofs:
        flat += ["--extra-body", '{"toploc": {"enabled": false}}']
    result = bench(parser.parse_args([*flat, "--ignore-eos", "--disable-tqdm"]))
    assert result["completed"] == requests, f"{result['completed']} of {requests} requests completed"
    return {name: result[name] for name in FIGURES}


def latencies(server: LocalServer) -> dict[str, float]:
    """Answers by the upper bound, in seconds, of the time from their last token to their proofs."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    buckets = [re.fullmatch(r'toploc:proof_latency_seconds_bucket\{.*le="(\S+)"\} (\S+)', line) for line in lines]
    return {match[1]: float(match[2]) for match in buckets if match}


def latency_table(runs: list[dict[str, Any]], concurrencies: Sequence[int]) -> str:
    lines = []
    for concurrency in concurrencies:
        pairs = [run["latency"] for run in runs if run["concurrency"] == concurrency]
        totals = {bound: sum(pair[bound] for pair in pairs) for bound in pairs[0]}
        shares = [f"{count / totals['+Inf']:.1%} in {float(bound) * 1e3:g} ms" for bound, count in totals.items()]
        lines.append(f"proofs at {concurrency} concurrent, {totals['+Inf']:g} answers: {', '.join(shares[:-1])}")
    return "\n".join(lines)


def table(runs: list[dict[str, Any]], concurrencies: Sequence[int]) -> str:
    """Ratios as a Markdown table."""
    lines = ["| concurrent | figure | plain | proofs | ratio | smallest | largest |", "|---|---|---|---|---|---|---|"]
    for concurrency in concurrencies:
        pairs = [run for run in runs if run["concurrency"] == concurrency]
        for key, name in FIGURES.items():
            ratios = [pair["proofs"][key] / pair["plain"][key] for pair in pairs]
            plain, proofs = (statistics.median(pair[side][key] for pair in pairs) for side in ("plain", "proofs"))
            lines.append(
                f"| {concurrency} | {name} | {plain:.2f} | {proofs:.2f} | **{statistics.median(ratios):.4f}** "
                f"| {min(ratios):.4f} | {max(ratios):.4f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--rounds", type=int, default=2, help="requests per concurrent stream")
    parser.add_argument("--least-requests", type=int, default=4)
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--range-ratio", type=float, default=0.5, help="by how much lengths vary")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no pair after so long")
    parser.add_argument("--seeds", action="store_true", help="compare proofs of seeded answers with proofs of others")
    parser.add_argument("--one-server", action="store_true", help="compare answers of one server with and without")
    parser.add_argument("--proofs-first", action="store_true", help="start that server first: memory differs by order")
    parser.add_argument("--output", type=Path, help="every run's figures as JSON")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split])
    flags = [options.model, "--served-model-name", "bench", *sys.argv[split + 1 :]]
    runs: list[dict[str, Any]] = []
    began = time.monotonic()
    servers = {
        "plain": LocalServer(flags, command=None if options.seeds else PLAIN),
        "proofs": LocalServer([*flags, *(["--toploc-seed-requests"] if options.seeds else [])]),
    }
    if options.one_server:
        del servers["plain"]
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(servers[name])
            for name in (reversed(servers) if options.proofs_first else servers)
        }
        proofs = started["proofs"]
        plain = started.get("plain", proofs)
        print(f"up after {time.monotonic() - began:.0f} s", flush=True)
        assert "toploc_proofs" in complete(proofs)
        assert plain is proofs or options.seeds or "toploc_proofs" not in complete(plain)
        for pair in range(options.pairs):
            for concurrency in options.concurrency:
                if time.monotonic() - began > options.seconds:
                    continue
                order = [("plain", plain), ("proofs", proofs)]
                seed, before = time.monotonic_ns() % 2**31, latencies(proofs)
                figures = {
                    name: drive(server, options.model, concurrency, options, seed, proofs=name == "proofs")
                    for name, server in (order if pair % 2 == 0 else reversed(order))
                }
                latency = {bound: count - before[bound] for bound, count in latencies(proofs).items()}
                runs.append({"pair": pair, "concurrency": concurrency, "latency": latency, **figures})
                if options.output:
                    options.output.write_text(json.dumps(runs, indent=1))
    measured = [c for c in options.concurrency if any(run["concurrency"] == c for run in runs)]
    print(f"{options.input_len} tokens in, {options.output_len} out, {len(runs)} pairs\n{table(runs, measured)}")
    print(latency_table(runs, measured))


def complete(server: LocalServer) -> dict[str, Any]:
    body = {"model": "bench", "prompt": "one, two", "max_tokens": 2}
    result: dict[str, Any] = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).raise_for_status().json()
    return result


if __name__ == "__main__":
    main()
