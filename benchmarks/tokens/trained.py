"""Text by copies of a trained model, by another and by people, scored as the model's own, without servers.

    python benchmarks/tokens/trained.py MODEL FOLDER [--copies COPIES] [--other MODEL] [--writers copies people ...]
        [--kinds greedy sampled ...] [--bounds THRESHOLDS] [--answers 64] [--seconds 300]

One engine of vLLM writes answers of 256 tokens to prompts of text that people wrote (models/prompts.py), by the model
and by copies that it is changed to; transformers scores them (scoring.py). Bounds come from every second honest answer
(run.py), or are those of a thresholds file, and nothing is fitted to others. FOLDER gets bounds.yaml, rates.json,
table.md, and for each kind and writer texts and some of their scores, in float16, when they are done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import yaml

sys.path.append(str(Path(__file__).parents[1] / "evidence"))

import engines
from questions import Question, make_questions

from toploc.thresholds.bounds import Thresholds
from toploc.thresholds.tokens import DEFAULT

TOKENS = 256
KINDS = ("greedy", "cool", "sampled", "truncated", "seeded")
WRITERS = ("model", "copies", "temperatures", "people", "other")

FACTORS = {"hotter": 1.3, "colder": 0.7}
"""Temperature, times what was asked for."""

OTHERS_FROM = 100_000
SAVED = ("margin", "surprisal", "entropy", "replay")


class Study:
    """One model's texts and their scores."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.began = time.monotonic()
        self.args = args
        self.engine = engines.load("graphs", args.model, args.device, 4.0 if args.device == "cuda" else 1.0)
        # In vLLM 0.32 a worker cannot start once numba is there (proxy/engines/vllm/runners/lifecycle.py).
        import run
        from transformers_engine import TransformersEngine

        from toploc.verifier.prefill import TransformersPrefill

        self.rates = run
        self.sampler = self.engine.sampler
        self.prefill = TransformersPrefill(args.model, device=args.device)
        self.base = TransformersEngine.load(args.model, args.device).weights()
        self.load = TransformersEngine.load
        self.found: dict[tuple[str, str], Any] = {}
        args.folder.mkdir(parents=True, exist_ok=True)
        self.say(f"up; the sampler is {self.sampler}")

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  tokens of {Path(self.args.model).name}: {text}", flush=True)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > self.args.seconds

    def questions(self, writer: str, count: int) -> tuple[list[int], list[Question]]:
        """Numbers of prompts, and the prompts: honest answers have others than all else."""
        first = 0 if writer == "model" else OTHERS_FROM
        numbers = list(range(first, first + count))
        return numbers, make_questions(self.prefill.tokenizer, numbers, source="manual")

    def write(self, kind: str, writer: str, count: int) -> None:
        """Answers by the engine as it is."""
        from texts import request
        from vllm import SamplingParams

        numbers, asked = self.questions(writer, count)
        params = []
        for number in numbers:
            body = request(kind, number)
            temperature = body["temperature"] * FACTORS.get(writer, 1.0)
            options = {name: body[name] for name in ("seed", "top_p", "top_k") if name in body}
            params.append(
                SamplingParams(temperature=temperature, max_tokens=TOKENS, ignore_eos=True, detokenize=False, **options)
            )
        self.score(kind, writer, numbers, asked, self.engine.run([question.asked for question in asked], params))

    def by_copy(self, writer: str, alter: Any, count: int) -> None:
        """Answers by changed weights, in the engine of the model."""
        try:
            self.engine.replace(alter(self.base))
            for kind in self.args.kinds:
                self.write(kind, writer, count)
        finally:
            self.engine.replace(self.base.items())
        self.result()

    def by_another_model(self, kind: str, count: int) -> None:
        """Its text, as this model's tokens, at the temperature that was asked for."""
        from texts import request

        other = self.load(self.args.other, self.args.device)
        numbers, own = self.questions("other", count)
        asked = [
            Question(q.prompt, q.asked, request(kind, 0)["temperature"])
            for q in make_questions(other.tokenizer, numbers, source="manual")
        ]
        said = [other.tokenizer.decode(answer.token_ids) for answer in other.generate(asked, TOKENS + 64)]
        texts = [self.prefill.encode(text)[:TOKENS] for text in said]
        kept = [at for at, text in enumerate(texts) if len(text) == TOKENS]
        self.score(kind, "another model", *([items[at] for at in kept] for items in (numbers, own, texts)))

    def by_people(self, kind: str, count: int) -> None:
        """Passages of Python's reference manual."""
        from questions import WORDS

        numbers, asked = self.questions("people", count)
        manual = self.prefill.encode(" ".join(WORDS))
        step = (len(manual) - TOKENS) // count
        self.score(kind, "people", numbers, asked, [manual[step * at :][:TOKENS] for at in range(count)])

    def score(self, kind: str, writer: str, numbers: list[int], asked: list[Question], texts: list[list[int]]) -> None:
        import numpy as np
        from texts import request

        from toploc.tokens.sampling import Sampling
        from toploc.tokens.scoring import score_tokens

        scores = []
        for number, question, text in zip(numbers, asked, texts, strict=True):
            sampling = Sampling.of(request(kind, number)).model_copy(update={"sampler": self.sampler})
            logits = self.prefill.logits(self.prefill.states(question.prompt, text))
            scores.append(score_tokens(logits, question.prompt, text, sampling, self.prefill.eos_token_ids))
        self.found[kind, writer] = self.rates.Answers(kind, numbers, texts, scores)
        columns = {name: [getattr(one, name) for one in scores] for name in SAVED}
        kept = {name: np.array(rows, np.float16) for name, rows in columns.items() if rows and rows[0] is not None}
        name = f"{kind}-{writer.replace(' ', '-')}.npz"
        np.savez_compressed(self.args.folder / name, token_ids=np.array(texts, np.uint32), **kept)
        self.say(f"{kind} by {writer}: {len(texts)} scored")

    def tried(self, name: str, do: Any, *args: Any) -> None:
        if self.late:
            return
        try:
            do(*args)
        except Exception as error:  # the others are worth as much
            self.say(f"{name} failed: {type(error).__name__}: {str(error)[:500]}")

    def run(self) -> None:
        count = self.args.answers
        kinds, wanted = self.args.kinds, self.args.writers
        for kind in kinds if "model" in wanted else ():
            self.tried(kind, self.write, kind, "model", 2 * count)
        for writer, alter in self.copies().items() if "copies" in wanted else ():
            self.tried(writer, self.by_copy, writer, alter, count)
        for kind in kinds if "people" in wanted else ():
            self.tried("people", self.by_people, kind, count)
        for kind in kinds if "other" in wanted and self.args.other else ():
            self.tried("another model", self.by_another_model, kind, count)
        self.result()
        for writer, kind in product(FACTORS, kinds) if "temperatures" in wanted else ():
            if kind != "greedy":
                self.tried(writer, self.write, kind, writer, count)
        self.result()

    def copies(self) -> dict[str, Any]:
        import weights

        tuned = {}
        if self.args.copies and (self.args.copies / "tuned" / "config.json").exists():
            tuned = self.load(str(self.args.copies / "tuned"), self.args.device).weights()
        found: dict[str, Any] = {"int4": weights.int4, "fp8": weights.fp8}
        found |= {"fine-tuned": lambda _: tuned.items()} if tuned else {}
        return {**found, "int8": weights.int8}

    def result(self) -> None:
        """Bounds from half of the honest answers, and what they refuse."""
        honest = [answers for (_, writer), answers in self.found.items() if writer == "model"]
        if self.args.bounds:
            bounds = Thresholds.load(self.args.bounds).tokens or DEFAULT
        elif len(honest) < len(self.args.kinds):
            self.say("no bounds: not every kind of honest answer is there")
            return
        else:
            bounds = self.rates.fit(honest)
        folder = self.args.folder
        (folder / "bounds.yaml").write_text(yaml.safe_dump({"tokens": bounds.model_dump()}, sort_keys=False), "utf-8")
        rates = [
            [kind, writer, tokens, *answers.rejected(tokens, bounds, 1 if writer == "model" else None)]
            for (kind, writer), answers in self.found.items()
            for tokens in self.rates.LENGTHS
        ]
        (folder / "rates.json").write_text(json.dumps(rates) + "\n", "utf-8")
        (folder / "table.md").write_text(self.rates.table(self.found, bounds) + "\n", "utf-8")


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=Path, help="folder of the fine-tuned copy, `tuned`")
    parser.add_argument("--other", help="folder of another model")
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=WRITERS, help="(default: all)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of requests (default: all)")
    parser.add_argument("--bounds", help="a thresholds file, or the name of one that ships")
    parser.add_argument("--answers", type=int, default=64, help="of each kind by each writer, and twice as many honest")
    parser.add_argument("--seconds", type=float, default=300.0, help="begin nothing after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    Study(parser.parse_args()).run()


if __name__ == "__main__":
    main()
