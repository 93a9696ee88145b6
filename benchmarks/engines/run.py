"""How far honest proofs of one engine lie from another's prefill, and those of copies of the model.

    python benchmarks/engines/run.py OUT [--model DIR --name NAME] [--answers 100] [--tokens 256]
        [--sglang-answers N] [--copies int8 fp8 int4] [--copied-answers N] [--seconds S] [--table]
        [--sglang .venv-sglang/bin/python | --gpu --sglang-path FOLDERS]

vLLM and SGLang each answer the same requests, sampled at temperature 1. Each answer is held against a prefill by the
other (`POST /v1/toploc/verify`) and by transformers. vLLM also answers with copies of the weights (`models.alter`),
which the others take for the model. Run it with the Python that has vLLM. What is in the folder OUT already is not
done again; with `--table` nothing is, and the table is printed.

On processors servers run one after another. With `--gpu` they run side by side on one GPU: vLLM from this process's
PYTHONPATH, SGLang from another. A server that fails takes no other with it.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import servers
from asking import Asking, Left, OutOfTime
from comparison import markdown, rows
from folder import FIGURES, HONEST, Folder, Held
from questions import questions
from servers import BOUNDS, ROOT

from models.alter import make
from toploc.errors import InvalidThresholds
from toploc.proofs.verdict import verify_activations
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toploc_proxy.local_server import LocalServer

BUNDLED: Final = ROOT / "models" / "toploc-mini"
TRANSFORMERS: Final = "transformers"

Prover = tuple[str, str]
"""Engine and weights of one that answers."""


class Run:
    """All of one model."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = Folder(args.out)
        self.machine = servers.gpu(args.sglang_path) if args.gpu else servers.processors(args.sglang)
        self.asking = Asking(self.folder, self.machine.at_once, time.monotonic() + args.seconds)
        self.failed = False
        self.provers = [("vLLM", HONEST), *(("vLLM", copy) for copy in args.copies), ("SGLang", HONEST)]

    def answer(self, prover: Prover, url: str) -> None:
        """All requests whose answers are not there."""
        args, count = self.args, self._count(prover)
        bodies = list(questions(count, name=args.name, tokens=args.tokens, topics=args.model == BUNDLED))
        self.asking.answer(*prover, url, bodies[len(self.folder.answers(*prover)) :])

    def prefill(self, left: list[Left]) -> None:
        """By transformers; on processors one after another, since a batch is no faster there."""
        from prefill import Prefill

        engine, bounds = Prefill(self.args.model, device=self.machine.device), Thresholds.load(BOUNDS)
        step = 16 if self.args.gpu else 1
        for some in self.asking.in_time(left):
            for at in range(0, len(some), step):
                batch = some[at : at + step]
                states = engine.of([evidence for *_, evidence in batch])
                for (prover, weights, number, evidence), rows_of_it in zip(batch, states, strict=True):
                    [choice] = evidence["response"]["toploc_proofs"]["choices"]
                    verdict = verify_activations(choice["proofs"], rows_of_it, thresholds=bounds)
                    chunks = [[getattr(chunk, name) for name in FIGURES] for chunk in verdict.chunks]
                    self.folder.keep(Held(prover, weights, TRANSFORMERS, number, chunks))

    def in_turn(self) -> None:
        """Servers one after another, since each takes gigabytes."""
        for copy in self.args.copies:
            if not self._is_complete(prover := ("vLLM", copy)):
                with self._server(prover) as server:
                    self.answer(prover, server.url)
        # The first verifies what the second answers once that is there.
        for engine in ("SGLang", "vLLM", "SGLang"):
            prover = engine, HONEST
            if self._is_complete(prover) and not list(self._left(engine)):
                continue
            with self._server(prover) as server:
                self.answer(prover, server.url)
                self.asking.verify(engine, server.url, list(self._left(engine)))
        self.prefill(list(self._left(TRANSFORMERS)))

    def side_by_side(self) -> None:
        """All servers at once, then all answers, then all that is to be verified."""
        began: dict[Prover, LocalServer] = {}
        left: dict[str, list[Left]] = {}

        def verify(name: str) -> None:
            if name == TRANSFORMERS:
                self.prefill(left[name])
            else:
                self.asking.verify(name, began[name, HONEST].url, left[name])

        with ThreadPoolExecutor() as pool:
            try:
                self._each(pool, "start", lambda one: began.update({one: self._server(one).__enter__()}), self.provers)
                self._each(pool, "answer", lambda one: self.answer(one, began[one].url), list(began))
                left |= {name: list(self._left(name)) for name in ("vLLM", "SGLang", TRANSFORMERS)}
                self._each(pool, "verify", verify, list(left))
            finally:
                self._each(pool, "stop", lambda one: self._stop(one, began[one]), list(began))

    def _each(self, pool: ThreadPoolExecutor, what: str, do: Callable[[Any], None], whom: Iterable[Any]) -> None:
        """Does it to all at once. What fails takes nothing else with it, and is printed."""
        began = time.monotonic()
        for one, future in [(one, pool.submit(do, one)) for one in whom]:
            try:
                future.result()
                print(f"{what} {one}: done after {time.monotonic() - began:.0f} s", flush=True)
            except (Exception, OutOfTime) as error:
                self.failed = True
                print(f"{what} {one}: {error!r:.5000}", flush=True)

    def _stop(self, prover: Prover, server: LocalServer) -> None:
        (self.folder.path / f"server-{'-'.join(prover).replace(' ', '-')}.log").write_text(server.log())
        server.__exit__()

    def _left(self, verifier: str) -> Iterator[Left]:
        seen = {(one.prover, one.weights, one.answer) for one in self.folder.held() if one.verifier == verifier}
        for prover, weights in self.provers:
            if prover == verifier:
                continue  # of one engine seen by another
            for number, evidence in enumerate(self.folder.answers(prover, weights)):
                if (prover, weights, number) not in seen:
                    yield prover, weights, number, evidence

    def _is_complete(self, prover: Prover) -> bool:
        return len(self.folder.answers(*prover)) >= self._count(prover)

    def _count(self, prover: Prover) -> int:
        engine, weights = prover
        given = self.args.sglang_answers if engine == "SGLang" else None
        return given or (self.args.copied_answers if weights != HONEST else None) or self.args.answers

    def _server(self, prover: Prover) -> LocalServer:
        engine, weights = prover
        model = self.args.model if weights == HONEST else self._altered(weights)
        return self.machine.server(engine, model, self.args.name)

    def _altered(self, copy: str) -> Path:
        path = self.folder.path / f"weights-{copy}"
        return path if path.exists() else make(copy, self.args.model, path)


def table(run: Run) -> None:
    """Prints what is there, and keeps it beside the answers."""
    if not (held := run.folder.held()):
        return
    names = [BOUNDS]
    try:
        names.append(Thresholds.load(run.args.name).name)
    except InvalidThresholds:
        print(f"there are no thresholds of {run.args.name}")
    found = rows(held, names)
    print(markdown(found))
    (run.args.out / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    said = {
        f"{one.verifier} on {one.prover}'s, {one.weights}: {name} {status}"
        for one in held
        for name, status in one.checks.items()
    }
    print(*sorted(said), sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the run's folder")
    parser.add_argument("--model", type=Path, default=BUNDLED, help="the folder of the weights")
    parser.add_argument("--name", default="toploc-mini", help="that they are served under, and of their thresholds")
    parser.add_argument("--answers", type=int, default=100, help="of each engine")
    parser.add_argument("--sglang-answers", type=int, help="of SGLang, if it is to be other than of vLLM")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--copies", nargs="*", default=[], help="kinds of copies, of `python -m models.alter`")
    parser.add_argument("--copied-answers", type=int, help="of each copy, if it is to be other than of the model")
    parser.add_argument("--sglang", default=str(ROOT / ".venv-sglang" / "bin" / "python"), help="a Python with SGLang")
    parser.add_argument("--gpu", action="store_true", help="all servers side by side, on one GPU")
    parser.add_argument("--sglang-path", default="", help="with --gpu: PYTHONPATH of SGLang's servers")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long, to go on later")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    try:
        if not args.table:
            run.side_by_side() if args.gpu else run.in_turn()
    finally:
        table(run)
    if run.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
