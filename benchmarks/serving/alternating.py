"""What proofs cost a server, in a form that can decide: proofs off and on in turn within one server.

    python benchmarks/serving/alternating.py MODEL [--concurrency 1 64 256 1024] [--pairs 12] [--seconds 30] \\
        [--output FILE] [--spy SECONDS] [-- vllm serve flags]

So many streams ask all the time. For `--seconds` they ask with proofs, for as many without, in the order A B B A. What
is counted begins when the answers before a change have ended. Tokens, steps and
processor time are the server's own counts, so the load generator's share of the machine is in none of them.

A ratio is that of medians over pairs, with its bootstrap interval. Where that lies on both sides of the goal, the run
says `undecided`: more pairs, or a quieter machine, are needed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
from processes import Processes
from ratios import Goal, Ratio
from spy import shares
from streams import Shape, Streams, sizes
from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterator

GOALS: Final = {
    "output tokens/s": Goal(0.995, higher_is_better=True, worst=0.98),
    "steps/s": Goal(0.998, higher_is_better=True),
    "TTFT p99, ms": Goal(1.01),
    "ITL p99, ms": Goal(1.01),
    "API server, CPU µs a token": Goal(1.01),
    "engine, main, CPU µs a token": Goal(1.01),
    "worker, main, CPU µs a token": Goal(1.01),
}
"""Of what else is measured there is no goal."""

ANSWERS: Final = 4
"""That a stream has at least while it is measured. In shorter times streams that began together all prefill, or all
decode: with one answer each, 256 streams had 32 steps a second in one half of a pair, and 140 in the other."""

COUNTERS: Final = {"tokens": "vllm:generation_tokens_total", "steps": "vllm:iteration_tokens_total_count"}


def counted(url: str) -> dict[str, float]:
    """The server's counters, summed over front ends and engines."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    return {
        name: sum(float(value) for value in re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))
        for name, metric in COUNTERS.items()
    }


def figures(streams: Streams, server: LocalServer, processes: Processes, seconds: float) -> dict[str, float]:
    """Of so many seconds from now."""
    streams.taken()
    began, before, used = time.monotonic(), counted(server.url), processes.seconds()
    while time.monotonic() < began + seconds:
        time.sleep(max(0.0, min(1.0, began + seconds - time.monotonic())))
    ended, after, spent = time.monotonic(), counted(server.url), processes.seconds()
    tokens = after["tokens"] - before["tokens"]
    assert tokens, "the server generated nothing"
    answers = [answer for answer in streams.taken() if answer.events]
    took = percentile([answer.events[-1] - answer.asked for answer in answers], 50)
    if took * ANSWERS > seconds:
        print(f"an answer takes {took:.1f} s: take --seconds {took * ANSWERS:.0f} or more", file=sys.stderr)
    firsts = [a.events[0] - a.asked for a in answers if began <= a.events[0] <= ended]
    gaps = [
        later - one
        for answer in answers
        for one, later in zip(answer.events, answer.events[1:], strict=False)
        if began <= later <= ended
    ]
    found = {
        "output tokens/s": tokens / (ended - began),
        "steps/s": (after["steps"] - before["steps"]) / (ended - began),
        "TTFT p50, ms": 1e3 * percentile(firsts, 50),
        "TTFT p99, ms": 1e3 * percentile(firsts, 99),
        "ITL p50, ms": 1e3 * percentile(gaps, 50),
        "ITL p99, ms": 1e3 * percentile(gaps, 99),
    }
    return found | {f"{part}, CPU µs a token": 1e6 * (spent[part] - used[part]) / tokens for part in used}


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


Pair = dict[str, dict[str, float]]
"""Figures by name, `off` and `on`."""


def pairs_of(streams: Streams, server: LocalServer, options: argparse.Namespace) -> Iterator[Pair]:
    processes = Processes(server.pid)
    for number in range(options.pairs):
        pair: Pair = {}
        for proofs in (False, True) if number % 2 == 0 else (True, False):
            streams.ask(proofs=proofs)
            pair["on" if proofs else "off"] = figures(streams, server, processes, options.seconds)
        yield pair


def table(runs: list[dict[str, Any]], concurrencies: list[int]) -> str:
    lines = ["| concurrent | figure | off | on | ratio | 95 % interval | goal | |", "|---|---|---|---|---|---|---|---|"]
    for concurrency in concurrencies:
        pairs = [run for run in runs if run["concurrency"] == concurrency]
        for name in pairs[0]["off"] if pairs else ():
            both = [(pair["off"][name], pair["on"][name]) for pair in pairs]
            if not np.all(np.isfinite(both)) or not any(off for off, _ in both):
                continue
            ratio, goal = Ratio.of(both), GOALS.get(name)
            off, on = np.median(both, axis=0)
            held = f"{goal} | {ratio.verdict(goal)}" if goal is not None else " | "
            lines.append(
                f"| {concurrency} | {name} | {off:.4g} | {on:.4g} | **{ratio.value:.4f}** "
                f"| {ratio.low:.4f} to {ratio.high:.4f} | {held} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 64, 256, 1024])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=30, help="that count of each half of a pair")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--spy", type=float, default=0, help="seconds of py-spy at each concurrency, after the pairs")
    parser.add_argument("--output", type=Path, help="every segment's figures as JSON")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split])
    flags = [options.model, "--served-model-name", "bench", *sys.argv[split + 1 :]]
    shape = Shape("bench", sizes(options.model), options.input_len, options.output_len)
    runs: list[dict[str, Any]] = []
    with LocalServer(flags) as server:
        for concurrency in options.concurrency:
            with Streams(server.url, concurrency, shape) as streams:
                for pair in pairs_of(streams, server, options):
                    runs.append({"concurrency": concurrency, **pair})
                    if options.output:
                        options.output.write_text(json.dumps(runs, indent=1))
                if options.spy:
                    streams.ask(proofs=True)
                    print(shares(Processes(server.pid), options.spy), flush=True)
    print(f"{options.input_len} tokens in, {options.output_len} out, {options.pairs} pairs of {options.seconds:g} s")
    print(table(runs, options.concurrency))


if __name__ == "__main__":
    main()
