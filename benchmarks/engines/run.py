"""How far honest proofs of one engine lie from another's prefill, and those of copies of the model.

    python benchmarks/engines/run.py OUT [--model DIR --name NAME] [--answers 100] [--tokens 256]
        [--sglang-answers N] [--copies int8 fp8 int4] [--sglang .venv-sglang/bin/python] [--seconds S] [--table]

vLLM and SGLang each answer the same requests, sampled at temperature 1. Each answer is held against a prefill by both
servers (`POST /v1/toploc/verify`) and by transformers. vLLM also answers with copies of the weights (`models.alter`),
which the others take for the model. Run it with the Python that has vLLM. What is in the folder OUT already is not
done again; with `--table` nothing is, and the table is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
from comparison import markdown, rows
from folder import HONEST, Folder, Held
from servers import BOUNDS, ROOT, server_of

from toploc.proofs.verdict import verify_activations
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill

sys.path.insert(0, str(ROOT))
from models.alter import make
from models.prompts import prompts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc_proxy.local_server import LocalServer

BUNDLED: Final = ROOT / "models" / "toploc-mini"
AT_ONCE: Final = 16
KEPT: Final = 32
"""Answers, or reports, after which a run is looked at for whether it is out of time."""

FIGURES: Final = ("mismatches", "mantissa_mean", "mantissa_median")
TOPICS: Final = (
    *("a story", "the sea", "numbers", "a king", "what is"),
    *("17 + 25", "the sum of", "a letter", "rain", "tell me"),
)
"""What the bundled model has read of."""


class Run:
    """All of one model.

    Attributes:
        provers: engine and weights of each that answers.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = Folder(args.out)
        self._began = time.monotonic()
        self.provers = [("vLLM", HONEST), *(("vLLM", copy) for copy in args.copies), ("SGLang", HONEST)]

    def answer(self, prover: str, weights: str, url: str) -> None:
        """All requests whose answers are not there."""
        bodies = list(self._requests(self._count(prover)))[len(self.folder.answers(prover, weights)) :]
        with httpx.Client(base_url=url, timeout=900) as http, ThreadPoolExecutor(AT_ONCE) as pool:

            def ask(body: dict[str, Any]) -> dict[str, Any]:
                return {
                    "request": body,
                    "response": http.post("/v1/chat/completions", json=body).raise_for_status().json(),
                }

            for at in range(0, len(bodies), KEPT):
                self._stop_in_time()
                self.folder.keep_answers(prover, weights, pool.map(ask, bodies[at : at + KEPT]))

    def verify(self, verifier: str, url: str) -> None:
        """By a server, all answers that are there and that it has not seen."""
        with httpx.Client(base_url=url, timeout=900) as http, ThreadPoolExecutor(AT_ONCE) as pool:

            def report(one: tuple[str, str, int, dict[str, Any]]) -> Held:
                prover, weights, number, evidence = one
                found = http.post("/v1/toploc/verify", json=evidence).raise_for_status().json()
                checks = {check["name"]: check for check in found["checks"]}
                said = {
                    name: f"{check['status']} {check.get('reason') or ''}".strip() for name, check in checks.items()
                }
                chunks = [[chunk[name] for name in FIGURES] for chunk in checks["proofs"]["figures"]["chunks"]]
                return Held(prover, weights, verifier, number, chunks, said)

            left = list(self._left(verifier))
            for at in range(0, len(left), KEPT):
                self._stop_in_time()
                for held in pool.map(report, left[at : at + KEPT]):
                    self.folder.keep(held)

    def prefill(self) -> None:
        """The same by transformers."""
        engine, bounds = TransformersPrefill(self.args.model), Thresholds.load(BOUNDS)
        for prover, weights, number, evidence in list(self._left("transformers")):
            self._stop_in_time()
            proofs = evidence["response"]["toploc_proofs"]
            [choice] = proofs["choices"]
            states = engine.hidden_states(proofs["prompt"]["token_ids"], choice["token_ids"])
            verdict = verify_activations(choice["proofs"], states, thresholds=bounds)
            chunks = [[getattr(chunk, name) for name in FIGURES] for chunk in verdict.chunks]
            self.folder.keep(Held(prover, weights, "transformers", number, chunks))

    def _left(self, verifier: str) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
        seen = {(one.prover, one.weights, one.answer) for one in self.folder.held() if one.verifier == verifier}
        for prover, weights in self.provers:
            if prover == verifier:
                continue  # of one engine seen by another
            for number, evidence in enumerate(self.folder.answers(prover, weights)):
                if (prover, weights, number) not in seen:
                    yield prover, weights, number, evidence

    def _stop_in_time(self) -> None:
        """Raises SystemExit, with which servers are stopped."""
        if time.monotonic() - self._began > self.args.seconds:
            raise SystemExit("out of time; the same command goes on here")

    def _is_complete(self, prover: str, weights: str) -> bool:
        return len(self.folder.answers(prover, weights)) >= self._count(prover)

    def _count(self, prover: str) -> int:
        return self.args.sglang_answers or self.args.answers if prover == "SGLang" else self.args.answers

    def _requests(self, count: int) -> Iterator[dict[str, Any]]:
        dice, natural = random.Random(0), prompts()
        for number in range(count):
            is_bundled = self.args.model == BUNDLED
            asked = " ".join(dice.choices(TOPICS, k=dice.randint(1, 12))) if is_bundled else natural[number]
            yield {
                "model": self.args.name,
                "messages": [{"role": "user", "content": asked}],
                "max_tokens": self.args.tokens,
                "temperature": 1.0,
                "ignore_eos": True,
                "toploc": {"prompt_token_ids": True},
            }

    def all(self) -> None:
        """Servers one after another, since each takes gigabytes."""
        for copy in self.args.copies:
            if not self._is_complete("vLLM", copy):
                with self._server("vLLM", self._altered(copy)) as server:
                    self.answer("vLLM", copy, server.url)
        # The first verifies what the second answers once that is there.
        for engine in ("SGLang", "vLLM", "SGLang"):
            if self._is_complete(engine, HONEST) and not list(self._left(engine)):
                continue
            with self._server(engine, self.args.model) as server:
                self.answer(engine, HONEST, server.url)
                self.verify(engine, server.url)
        self.prefill()

    def _server(self, engine: str, model: Path) -> LocalServer:
        return server_of(engine, model, self.args.name, self.args.sglang)

    def _altered(self, copy: str) -> Path:
        path = self.folder.path / f"weights-{copy}"
        return path if path.exists() else make(copy, self.args.model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the run's folder")
    parser.add_argument("--model", type=Path, default=BUNDLED, help="the folder of the weights")
    parser.add_argument("--name", default="toploc-mini", help="that they are served under, and of their thresholds")
    parser.add_argument("--answers", type=int, default=100, help="of each engine")
    parser.add_argument("--sglang-answers", type=int, help="of SGLang, if it is to be other than of vLLM")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--copies", nargs="*", default=[], help="kinds of copies, of `python -m models.alter`")
    parser.add_argument("--sglang", default=str(ROOT / ".venv-sglang" / "bin" / "python"), help="a Python with SGLang")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long, to go on later")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    if not args.table:
        run.all()
    held = run.folder.held()
    found = rows(held, [BOUNDS, args.name])
    print(markdown(found))
    (args.out / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    said = {
        f"{one.verifier} on {one.prover}'s, {one.weights}: {name} {status}"
        for one in held
        for name, status in one.checks.items()
    }
    print(*sorted(said), sep="\n")


if __name__ == "__main__":
    main()
