"""The rows of one model and engine: honest and altered answers, held against several verifiers."""

from __future__ import annotations

import pickle
import re
import time
from typing import TYPE_CHECKING, Any

import torch
from figures import of_answers
from kinds import ALTERED, Kind
from points import save_points
from questions import Answer, make_questions
from records import Records, Row
from transformers_engine import TransformersEngine, prove

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

RANKS = (2, 4, 8)
EVERY_VERIFIER = 64
"""Answers of a row that verifiers other than the first two are tried on, and 512 tokens of each."""
VLLM = "vLLM, prefill"


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
        name = args.name or re.sub(r".*/", "", args.folder.rstrip("/"))
        self.model = name
        self.attention = self.first_attention()
        self.first_verifier = f"transformers, {self.attention}"
        self.waiting: Path = args.output.with_suffix(".waiting")
        self.say(f"{args.engine} up")

    def first_attention(self) -> str:
        """Of every row: torch's flash kernel, where it runs."""
        if self.args.device == "cuda":
            # Beyond a window attention has a mask, which the kernel does not take.
            window = getattr(self.verifier.model.config, "sliding_window", None) or 0
            try:
                self.verifier.states([([0] * (window + 2), [2, 3])], "flash")
            except RuntimeError:
                return "sdpa"
            return "flash"
        return "sdpa"

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {self.model}: {text}", flush=True)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > self.args.seconds

    def run(self, kinds: list[Kind]) -> None:
        for kind in kinds:
            if self.late:
                break
            if (self.model, kind.name, self.first_verifier) in self.done:
                continue
            try:
                self.row(kind)
            except Exception as error:  # the other rows are worth as much
                self.say(f"{kind.name} failed: {type(error).__name__}: {str(error)[:500]}")
        self.verify_waiting()

    def row(self, kind: Kind) -> None:
        """Answers of one kind, by transformers and by vLLM, and where it says so by every verifier there is."""
        answers = self.make(kind)
        pairs = [(answer.prompt, answer.token_ids) for answer in answers]
        self.write(kind, self.first_verifier, answers, self.verifier.states(pairs, self.attention))
        if self.args.engine in ("graphs", "eager"):
            self.write(kind, VLLM, answers, self.engine.states(pairs))
        elif self.args.engine != "transformers":
            self.waiting.mkdir(exist_ok=True)
            made = self.waiting / f"{self.args.engine} {self.model}.new"
            made.write_bytes(pickle.dumps((self.model, kind.name, kind.kind, kind.points, answers)))
            made.replace(made.with_suffix(".pickle"))
        if kind.every_verifier:
            self.other_verifiers(kind, [_beginning(answer) for answer in answers[:EVERY_VERIFIER]])

    def make(self, kind: Kind) -> list[Answer]:
        """The answers, by an engine that is honest again afterwards."""
        count = max(4, round(self.args.answers * kind.share))
        numbers = range(kind.first, kind.first + count)
        asked = make_questions(self.verifier.tokenizer, numbers, kind.change, self.args.prompts)
        tokens = self.args.long if kind.long else self.args.tokens
        try:
            if kind.alter:
                self.engine.replace(kind.alter(self.base))
            if kind.patch:
                self.engine.call(kind.patch)
            if self.args.engine == "transformers":
                return self.engine.generate(asked, tokens, seed=kind.first)
            self.engine.llm.reset_prefix_cache()
            answers = self.engine.generate(asked, tokens, kind.at_once)
            return self.engine.generate(asked, tokens, kind.at_once) if kind.cached else answers
        finally:
            if kind.alter:
                self.engine.replace(self.base.items())
            if kind.restore:
                self.engine.call(kind.restore)

    def write(self, kind: Kind, verifier: str, answers: list[Answer], states: list[torch.Tensor]) -> None:
        chunks = of_answers(answers, states)
        self.records.add(Row(self.model, kind.kind, kind.name, verifier, chunks))
        if kind.points and self.args.points:
            save_points(self.args.points, f"{self.model} {kind.name} {verifier}", answers, states)
        passed = sum(all(chunk[5] for chunk in answer) for answer in chunks)
        self.say(f"{kind.name} / {verifier}: {passed} of {len(chunks)} pass the paper's bounds")

    def other_verifiers(self, kind: Kind, answers: list[Answer]) -> None:
        pairs = [(answer.prompt, answer.token_ids) for answer in answers]
        shown = Kind(kind.name, kind.kind, kind.first)
        for attention in ("eager", "efficient", "cudnn") if self.args.device == "cuda" else ("eager",):
            try:
                states = self.verifier.states(pairs, attention)
            except RuntimeError as error:  # not every kernel takes grouped queries
                self.say(f"no {attention}: {str(error).splitlines()[0]}")
                continue
            self.write(shown, f"transformers, {attention}", answers, states)
        for ranks in RANKS if self.args.device == "cuda" else ():
            with self.verifier.split_over(ranks):
                states = self.verifier.states(pairs, self.attention)
            self.write(shown, f"{self.first_verifier}, sums as of {ranks} tensor-parallel ranks", answers, states)
        if not self.args.fast:
            for dtype, name in ((torch.float16, "float16"), (torch.float32, "float32")):
                self.precision(name, dtype, pairs)

    def precision(self, name: str, dtype: torch.dtype, pairs: list[tuple[list[int], list[int]]]) -> None:
        """The same texts, proven by states of another precision that are rounded to bfloat16."""
        other = TransformersEngine.load(self.args.folder, self.args.device, dtype)
        states = other.states(pairs, "sdpa")
        answers = [Answer(prompt, ids, prove(rows)) for (prompt, ids), rows in zip(pairs, states, strict=True)]
        kind = Kind(f"{name} (transformers, prefill)", ALTERED, 0)
        self.write(kind, self.first_verifier, answers, self.verifier.states(pairs, self.attention))

    def verify_waiting(self) -> None:
        """Answers by engines that cannot verify, by this one, which has the honest weights."""
        if self.args.engine != "graphs" or not self.waiting.exists():
            return
        for path in sorted(self.waiting.glob(f"* {self.model}.pickle")):
            if self.late:
                return
            try:
                path = path.rename(path.with_suffix(".taken"))
            except FileNotFoundError:  # another engine was faster
                continue
            _, name, kind, points, answers = pickle.loads(path.read_bytes())
            states = self.engine.states([(answer.prompt, answer.token_ids) for answer in answers])
            self.write(Kind(name, kind, 0, points=points), VLLM, answers, states)


def _beginning(answer: Answer, tokens: int = 512) -> Answer:
    return Answer(answer.prompt, answer.token_ids[:tokens], answer.proofs[: -(-tokens // 32)])
