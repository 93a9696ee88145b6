"""What verification costs: an answer's verification against its generation, and against plain prefills of its length.

    python benchmarks/verify/run.py [MODEL] [--tokens 512] [--concurrency 64] [--output FILE] [-- toploc serve flags]

One server generates the answers, verifies them and runs the plain prefills: completions of the same token ids with
`max_tokens` 1 and no proofs. Without MODEL its weights are random, in the shape of Llama-3.1-8B (../serving/shape.py).
First, one answer after another: the time to generate it at batch 1, and the time to verify it. Then throughput, with
as many requests in flight as `--concurrency` says: plain, verify, verify, plain, … so that drift of the machine falls
on both alike. Last, what others notice: the latency of short answers, one after another, alone and while a client has
100 answers verified again and again, alternately. Prefix caching is off, since plain prefills would read from it and
verifications never do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPE = Path(__file__).parents[1] / "serving" / "shape.py"
NAME = "bench"
BESIDE = 100
"""Verifications that a client asks for at once while others' latency is measured."""
SHORT = 16
"""Tokens of the answers whose latency it is."""
VOCABULARY = 270, 400
"""Prompts are of these token ids: whole words, or parts, in the bundled tokenizer."""


class Bench:
    def __init__(self, url: str, options: argparse.Namespace) -> None:
        # vLLM closes connections that are idle for five seconds, also while a request is on its way.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2)
        self._http = httpx.AsyncClient(base_url=url, timeout=600, limits=limits)
        self._options = options
        self._random = random.Random(options.seed)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._http.post(path, json=body)
        assert response.status_code == 200, response.text[:500]
        result: dict[str, Any] = response.json()
        return result

    async def answer(self) -> dict[str, Any]:
        """Evidence of one generation, greedy, of exactly the wanted length."""
        prompt = [self._random.randrange(*VOCABULARY) for _ in range(self._options.prompt_tokens)]
        request = {
            "model": NAME,
            "prompt": prompt,
            "max_tokens": self._options.tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        return {"request": request, "response": await self.post("/v1/completions", request)}

    async def prefill(self, evidence: dict[str, Any]) -> None:
        """Of the tokens that a verification prefills."""
        [choice] = evidence["response"]["toploc_proofs"]["choices"]
        ids = [*evidence["request"]["prompt"], *choice["token_ids"][:-1]]
        body = {"model": NAME, "prompt": ids, "max_tokens": 1, "temperature": 0, "toploc": {"enabled": False}}
        await self.post("/v1/completions", body)

    async def verify(self, evidence: dict[str, Any]) -> dict[str, Any]:
        return await self.post("/v1/toploc/verify", evidence)

    async def throughput(self, kind: str, answers: Sequence[dict[str, Any]]) -> float:
        """Requests a second, with `concurrency` in flight until the last has begun."""
        waiting = iter([answer for _ in range(self._options.rounds) for answer in answers])
        action = self.verify if kind == "verify" else self.prefill

        async def work() -> int:
            done = 0
            for evidence in waiting:
                await action(evidence)
                done += 1
            return done

        began = time.perf_counter()
        done = sum(await asyncio.gather(*(work() for _ in range(self._options.concurrency))))
        return done / (time.perf_counter() - began)

    async def short_answers(self) -> list[float]:
        """Seconds for each of `chats` short answers."""
        taken = []
        for _ in range(self._options.chats):
            prompt = [self._random.randrange(*VOCABULARY) for _ in range(self._options.prompt_tokens)]
            body = {"model": NAME, "prompt": prompt, "max_tokens": SHORT, "ignore_eos": True}
            began = time.perf_counter()
            await self.post("/v1/completions", body)
            taken.append(time.perf_counter() - began)
        return taken

    async def short_answers_beside(self, answers: Sequence[dict[str, Any]]) -> tuple[list[float], int]:
        """The same while `BESIDE` verifications run, and how many were done meanwhile."""
        items = {"items": [answers[i % len(answers)] for i in range(BESIDE)]}
        begun, done = asyncio.Event(), 0

        async def verify() -> None:
            nonlocal done
            while True:
                async with self._http.stream("POST", "/v1/toploc/verify", json=items) as response:
                    async for line in response.aiter_lines():
                        assert json.loads(line)["report"]["verdict"] == "accepted", line[:500]
                        begun.set()
                        done += 1

        verifying = asyncio.create_task(verify())
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait({verifying, waiting}, return_when=asyncio.FIRST_COMPLETED)
        before = done
        taken = await self.short_answers()
        counted = done - before
        verifying.cancel()
        await asyncio.wait({verifying, waiting})
        if not verifying.cancelled():
            verifying.result()
        return taken, counted


async def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(url, options)
    first = await bench.answer()  # of each kind, to warm up
    await bench.prefill(first)
    await bench.verify(first)

    generated, verified, prefilled, reports = [], [], [], []
    for _ in range(options.single):
        began = time.perf_counter()
        evidence = await bench.answer()
        generated.append(time.perf_counter() - began)
        for _ in range(3):
            began = time.perf_counter()
            reports.append(await bench.verify(evidence))
            verified.append(time.perf_counter() - began)
            began = time.perf_counter()
            await bench.prefill(evidence)
            prefilled.append(time.perf_counter() - began)
    print("one after another: done", flush=True)

    answers = await asyncio.gather(*(bench.answer() for _ in range(options.concurrency)))
    for kind in ("plain", "verify"):
        await bench.throughput(kind, answers)
    rates: dict[str, list[float]] = {"plain": [], "verify": []}
    for pair in range(options.pairs):
        for kind in ("plain", "verify") if pair % 2 == 0 else ("verify", "plain"):
            rates[kind].append(await bench.throughput(kind, answers))
            print(f"{kind}: {rates[kind][-1]:.2f} requests/s", flush=True)
    alone, beside, verified_beside = [], [], 0
    for _ in range(options.pairs):
        alone += await bench.short_answers()
        taken, counted = await bench.short_answers_beside(answers)
        beside += taken
        verified_beside += counted
    print("short answers: done", flush=True)
    checks = [check for report in reports for check in report["checks"]]
    outcomes: dict[str, int] = {}
    for check in checks:
        key = f"{check['name']} {check['status']}" + (f" ({check['reason']})" if check["reason"] else "")
        outcomes[key] = outcomes.get(key, 0) + 1
    return {
        "options": {name: str(value) for name, value in vars(options).items()},
        "server": httpx.get(f"{url}/v1/toploc").json(),
        "generate_s": generated,
        "verify_s": verified,
        "prefill_s": prefilled,
        "rates": rates,
        "short_alone_s": alone,
        "short_beside_s": beside,
        "verified_beside": verified_beside,
        "checks": outcomes,
    }


def table(result: dict[str, Any]) -> str:
    generate, verify, prefill = (
        statistics.median(result[key]) * 1e3 for key in ("generate_s", "verify_s", "prefill_s")
    )
    pairs = zip(result["rates"]["verify"], result["rates"]["plain"], strict=True)
    ratios = [verified / plain for verified, plain in pairs]
    plain, verified = (statistics.median(result["rates"][kind]) for kind in ("plain", "verify"))
    rate = result["verified_beside"] / sum(result["short_beside_s"])
    options = result["options"]
    lines = [
        f"{options['prompt_tokens']} tokens in, {options['tokens']} out; medians",
        "",
        "| | plain | verify | ratio | smallest | largest |",
        "|---|---|---|---|---|---|",
        (
            f"| generate at batch 1, ms | {generate:.1f} | {verify:.1f} | **{generate / verify:.1f} times faster** "
            f"| {min(result['generate_s']) / max(result['verify_s']):.1f} "
            f"| {max(result['generate_s']) / min(result['verify_s']):.1f} |"
        ),
        f"| plain prefill, ms | {prefill:.1f} | {verify:.1f} | {prefill / verify:.3f} | | |",
        (
            f"| requests/s at {options['concurrency']} concurrent | {plain:.2f} | {verified:.2f} "
            f"| **{statistics.median(ratios):.3f}** | {min(ratios):.3f} | {max(ratios):.3f} |"
        ),
        "",
        f"| {SHORT} tokens, ms | median | 95th percentile | largest |",
        "|---|---|---|---|",
        f"| alone | {_spread(result['short_alone_s'])} |",
        f"| beside {BESIDE} verifications, {rate:.1f} of them done a second | {_spread(result['short_beside_s'])} |",
        "",
        "checks: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(result["checks"].items())),
    ]
    return "\n".join(lines)


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    figures = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1]
    return " | ".join(f"{figure * 1e3:.1f}" for figure in figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--single", type=int, default=3, help="answers generated and verified one after another")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4, help="requests per stream in each run")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--chats", type=int, default=20, help="short answers, alone and beside verifications, a pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="all figures as JSON")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split])
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or folder
        flags = [model, "--served-model-name", NAME, "--no-enable-prefix-caching"]
        flags += ["--toploc-max-verify-concurrency", str(options.concurrency + 8)]
        if options.model is None:
            subprocess.run([sys.executable, str(SHAPE), folder], check=True)
            flags += ["--load-format", "dummy", "--max-model-len", "8192"]
        began = time.monotonic()
        with LocalServer([*flags, *sys.argv[split + 1 :]]) as server:
            print(f"server up after {time.monotonic() - began:.0f} s", flush=True)
            try:
                result = asyncio.run(measure(server.url, options))
            except BaseException:
                print(server.log()[-4000:], file=sys.stderr)
                raise
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))
    print(table(result))


if __name__ == "__main__":
    main()
