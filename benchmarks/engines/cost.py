"""What proofs cost SGLang: `toploc sglang` against `python -m sglang.launch_server`.

    python benchmarks/engines/cost.py MODEL [--concurrency 1 64 256] [--pairs 5] [--out FILE] [-- flags of both]

Both servers are up the whole time, and one is driven while the other idles: A B B A, so that drift of the machine falls
on both alike. Each request has as many random tokens of prompt as `--input-len`, and `--output-len` of answer.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "plain": [sys.executable, "-m", "sglang.launch_server"],
    "proofs": [sys.executable, "-m", "toploc", "sglang"],
}


def drive(url: str, concurrency: int, args: argparse.Namespace, seed: int) -> float:
    """Output tokens a second, of two requests a stream."""
    dice = random.Random(seed)

    def ask(prompt: list[int]) -> int:
        params = {"max_new_tokens": args.output_len, "ignore_eos": True, "temperature": 1.0}
        reply = http.post("/generate", json={"input_ids": prompt, "sampling_params": params})
        return int(reply.raise_for_status().json()["meta_info"]["completion_tokens"])

    prompts = [[dice.randrange(10, 4000) for _ in range(args.input_len)] for _ in range(2 * concurrency)]
    # Servers close connections that are idle for five seconds, also while a request is on its way.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2)
    with httpx.Client(base_url=url, timeout=900, limits=limits) as http, ThreadPoolExecutor(concurrency) as pool:
        began = time.monotonic()
        return sum(pool.map(ask, prompts)) / (time.monotonic() - began)


def table(pairs: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| concurrent | plain, tokens/s | proofs, tokens/s | ratio, median | smallest | largest |",
        "|---" * 6 + "|",
    ]
    for concurrency in dict.fromkeys(pair["concurrency"] for pair in pairs):
        mine = [pair for pair in pairs if pair["concurrency"] == concurrency]
        ratios = [pair["proofs"] / pair["plain"] for pair in mine]
        plain, proofs = (statistics.median(pair[side] for pair in mine) for side in COMMANDS)
        figures = f"{statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f}"
        lines.append(f"| {concurrency} | {plain:.0f} | {proofs:.0f} | {figures} |")
    return "\n".join(lines)


def compare(urls: dict[str, str], args: argparse.Namespace, until: float) -> list[dict[str, Any]]:
    """Pairs of rates, each kept as soon as it is there."""
    pairs: list[dict[str, Any]] = []
    for url in urls.values():
        drive(url, max(args.concurrency), args, 0)
    for number in range(args.pairs):
        for concurrency in args.concurrency:
            if time.monotonic() > until:
                return pairs
            order = list(urls) if number % 2 == 0 else list(urls)[::-1]
            rates = {name: drive(urls[name], concurrency, args, number + 1) for name in order}
            pairs.append({"concurrency": concurrency, **rates})
            print(pairs[-1], flush=True)
            if args.out:
                args.out.write_text(json.dumps(pairs, indent=1))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no pair after so long")
    parser.add_argument("--out", type=Path, help="a file for the pairs, as JSON")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:split])
    flags = ["--model-path", args.model, "--served-model-name", "bench", *sys.argv[split + 1 :]]
    until = time.monotonic() + args.seconds
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        servers = [LocalServer(flags, command=command) for command in COMMANDS.values()]
        up = dict(zip(COMMANDS, pool.map(stack.enter_context, servers), strict=True))
        try:
            print(table(compare({name: server.url for name, server in up.items()}, args, until)))
        except Exception:
            for name, server in up.items():
                print(f"{name}: {server.log()[-6000:]}", flush=True)
            raise


if __name__ == "__main__":
    main()
