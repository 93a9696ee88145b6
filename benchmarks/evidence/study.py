"""The rows of one model and engine: honest and altered answers, held against several verifiers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import weights
from figures import of_answers
from questions import CHANGES, Answer, make_questions
from records import Records, Row
from transformers_engine import TransformersEngine, prove

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

HONEST, ALTERED = "honest", "altered"
RANKS = (2, 4, 8)
ALTERED_FROM = 100_000
"""Questions of altered rows begin here: no honest row has them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: how answers are made. `share` of the answers that were asked for; `cached`: prompts are asked twice."""

    name: str
    kind: str
    alter: Callable[..., Any] | None = None
    change: str | None = None
    at_once: int = 128
    share: float = 1.0
    cached: bool = False
    every_verifier: bool = False


def honest_kinds(engine: str) -> list[Kind]:
    if engine == "graphs":
        return [
            Kind("CUDA graphs, 64 at once", HONEST, at_once=64, every_verifier=True),
            Kind("CUDA graphs, 64 at once, prompts in the prefix cache", HONEST, at_once=64, cached=True),
            Kind("CUDA graphs, 256 at once", HONEST, at_once=256, share=2.0),
            Kind("CUDA graphs, 16 at once", HONEST, at_once=16, share=0.5),
            Kind("CUDA graphs, 1 at once", HONEST, at_once=1, share=0.07),
        ]
    if engine == "eager":
        return [Kind("eager, prefill in chunks of 128, 64 at once", HONEST, at_once=64)]
    return (
        [Kind("transformers, decoding with a cache", HONEST, every_verifier=True)] if engine == "transformers" else []
    )


def altered_kinds(engine: str, folder: Path, device: str) -> list[Kind]:
    if engine in ("fp8", "fp8-kv"):
        name = {"fp8": "fp8 weights and activations", "fp8-kv": "fp8 KV cache"}[engine]
        return [Kind(name, ALTERED)]
    if engine == "eager":
        return []
    found = [
        Kind("int8 weights", ALTERED, weights.int8),
        Kind("weights rounded to fp8", ALTERED, weights.fp8),
        Kind("int4 weights", ALTERED, weights.int4),
        *(Kind(change, ALTERED, change=change) for change in CHANGES),
        Kind("one layer left out", ALTERED, weights.without_layer),
    ]
    tuned = copy_of(folder / "tuned", device)
    for distance in weights.DISTANCES:
        alter = weights.towards(tuned, distance) if tuned else weights.at_random(distance)
        what = "fine-tuned" if tuned else "weights changed at random"
        found.append(Kind(f"{what}, distance {distance:.1%}", ALTERED, alter))
    if other := copy_of(folder / "other", device):
        found.append(Kind("another seed", ALTERED, lambda _: other.items()))
    return found


def copy_of(folder: Path, device: str) -> dict[str, torch.Tensor] | None:
    return TransformersEngine.load(str(folder), device).weights() if (folder / "config.json").exists() else None


class Study:
    """The rows of one model and engine."""

    def __init__(self, args: argparse.Namespace, engine: Any) -> None:
        self.args = args
        self.records = Records(args.output)
        self.done = self.records.done()
        self.began = time.monotonic()
        self.verifier = TransformersEngine.load(args.folder, args.device)
        self.base = self.verifier.weights()
        self.engine = engine
        self.altered = False
        self.answers: dict[str, tuple[Kind, list[Answer]]] = {}
        name = args.name or Path(args.folder).name
        self.model = name
        self.first_verifier = "transformers, " + self.first_attention()
        self.say(f"{args.engine} up")

    def first_attention(self) -> str:
        """Of every row: torch's flash kernel, where it runs."""
        if self.args.device == "cuda":
            try:
                self.verifier.states([([0, 1], [2, 3])], "flash")
            except RuntimeError:
                return "sdpa"
            return "flash"
        return "sdpa"

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {self.model}: {text}", flush=True)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > self.args.seconds

    def write(self, kind: Kind, verifier: str, answers: list[Answer], states: list[torch.Tensor]) -> None:
        chunks = of_answers(answers, states)
        self.records.add(Row(self.model, kind.kind, kind.name, verifier, chunks))
        passed = sum(all(chunk[5] for chunk in answer) for answer in chunks)
        self.say(f"{kind.name} / {verifier}: {passed} of {len(chunks)} pass the paper's bounds")

    def wanted(self, kind: Kind, verifier: str) -> bool:
        return (self.model, kind.name, verifier) not in self.done

    def make(self, kind: Kind, number: int) -> list[Answer]:
        if self.altered:
            self.engine.replace(self.base.items())
            self.altered = False
        if kind.alter:
            self.altered = True
            self.engine.replace(kind.alter(self.base))
        first = ALTERED_FROM * (number + 1) if kind.kind == ALTERED else 1000 * number
        count = max(4, round(self.args.answers * kind.share))
        asked = make_questions(self.verifier.tokenizer, range(first, first + count), kind.change)
        if self.args.engine == "transformers":
            return self.engine.generate(asked, self.args.tokens, seed=number)
        self.engine.llm.reset_prefix_cache()
        answers = self.engine.generate(asked, self.args.tokens, kind.at_once)
        return self.engine.generate(asked, self.args.tokens, kind.at_once) if kind.cached else answers

    def run(self, kinds: list[Kind]) -> None:
        for number, kind in enumerate(kinds):
            if self.late:
                break
            if not self.wanted(kind, self.first_verifier):
                continue
            try:
                answers = self.make(kind, number)
                pairs = [(answer.prompt, answer.token_ids) for answer in answers]
                attention = self.first_verifier.rpartition(" ")[2]
                self.write(kind, self.first_verifier, answers, self.verifier.states(pairs, attention))
                self.answers[kind.name] = kind, answers
                if kind.every_verifier:
                    self.other_verifiers(kind, answers)
            except Exception as error:  # the other rows are worth as much
                self.say(f"{kind.name} failed: {type(error).__name__}: {str(error)[:500]}")
        self.verify_by_vllm()

    def other_verifiers(self, kind: Kind, answers: list[Answer]) -> None:
        pairs = [(answer.prompt, answer.token_ids) for answer in answers]
        first = self.first_verifier.rpartition(" ")[2]
        for attention in ("eager", "efficient", "cudnn") if self.args.device == "cuda" else ("eager",):
            try:
                states = self.verifier.states(pairs, attention)
            except RuntimeError as error:  # not every kernel takes grouped queries
                self.say(f"no {attention}: {str(error).splitlines()[0]}")
                continue
            self.write(kind, f"transformers, {attention}", answers, states)
        for ranks in RANKS if self.args.device == "cuda" else ():
            with self.verifier.split_over(ranks):
                states = self.verifier.states(pairs, first)
            self.write(kind, f"transformers, {first}, sums as of {ranks} tensor-parallel ranks", answers, states)
        if not self.args.fast:
            for dtype, name in ((torch.float16, "float16"), (torch.float32, "float32")):
                self.precision(name, dtype, pairs)

    def precision(self, name: str, dtype: torch.dtype, pairs: list[tuple[list[int], list[int]]]) -> None:
        """The same texts, proven by states of another precision that are rounded to bfloat16."""
        other = TransformersEngine.load(self.args.folder, self.args.device, dtype)
        states = other.states(pairs, "sdpa")
        answers = [Answer(prompt, ids, prove(rows)) for (prompt, ids), rows in zip(pairs, states, strict=True)]
        kind = Kind(f"{name} (transformers, prefill)", ALTERED)
        attention = self.first_verifier.rpartition(" ")[2]
        self.write(kind, self.first_verifier, answers, self.verifier.states(pairs, attention))

    def verify_by_vllm(self) -> None:
        """The rows again, by the engine with the honest weights."""
        if self.args.engine not in ("graphs", "eager"):
            return
        if self.altered:
            self.engine.replace(self.base.items())
            self.altered = False
        for kind, answers in self.answers.values():
            if not self.late and self.wanted(kind, "vLLM, prefill"):
                states = self.engine.states([(answer.prompt, answer.token_ids) for answer in answers])
                self.write(kind, "vLLM, prefill", answers, states)
