"""Bounds of the check on tokens from a model's honest answers, and the rates at which it rejects those and others.

    python benchmarks/tokens/run.py FOLDER [--honest 320] [--others 80] [--write]

FOLDER keeps texts and scores, so that a run goes on where one ended; `--write` puts the bounds into the model's
thresholds, which keep their chances. Texts are 256 tokens by a real server of the bundled model, of its altered copies,
and at other temperatures than the request's, and by a person (texts.py); each is scored as an answer of the bundled
model by transformers, as a verifier would that was handed it with honest proofs (scoring.py). Bounds come from one half
of the honest answers, and nothing is fitted to others; the table is of the other half, and of each writer's answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import vllm
import yaml
from scoring import SAMPLER, Scorer, beginning
from texts import HONEST, PERSON, REQUESTS, ROOT, TOKENS, WRITERS, Texts, request

from toploc.calibration.step import largest_logit, step_of
from toploc.checks.tokens import check_tokens
from toploc.evidence.evidence import Answer
from toploc.protocol import ChoiceProofs, PromptDigest
from toploc.thresholds.tokens import DEFAULT, TokenBounds
from toploc.tokens.sampling import Sampling
from toploc.tokens.surprisal import rarest_token, whole_answer, worst_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from toploc.tokens.scores import TokenScores

TARGET = ROOT / "configs" / "thresholds" / "toploc-mini.yaml"
LENGTHS = (8, 32, 64, 128, TOKENS)
OTHERS_FROM = 100_000
"""The first question of other writers, which are no honest answer's."""


class Answers:
    """Scored answers of one kind by one writer."""

    def __init__(self, kind: str, numbers: Sequence[int], texts: list[list[int]], scores: list[TokenScores]) -> None:
        self.kind = kind
        self.items = list(zip(numbers, texts, scores, strict=True))

    def half(self, which: int) -> list[TokenScores]:
        return [scores for i, (_, _, scores) in enumerate(self.items) if i % 2 == which]

    def rejected(self, tokens: int, bounds: TokenBounds, which: int | None = None) -> tuple[int, int]:
        """How many of how many answers of so many tokens; `which`: of one half alone."""
        statuses = []
        for i, (number, text, scores) in enumerate(self.items):
            if which is None or i % 2 == which:
                made = ChoiceProofs(index=0, token_ids=tuple(text[:tokens]), proofs=())
                answer = Answer(0, "", "length", made, PromptDigest.of([0]))
                sampling = Sampling.of(request(self.kind, number)).model_copy(update={"sampler": SAMPLER})
                check = check_tokens(answer, sampling, beginning(scores, tokens), bounds, decode=lambda _: "")
                statuses.append(check.status)
        assert set(statuses) <= {"passed", "weak", "failed"}
        return statuses.count("failed"), len(statuses)


def fit(honest: Iterable[Answers]) -> TokenBounds:
    """From one half of the honest answers of every kind, at every length:

    1. margin: twice the largest margin, with noise or without; support: twice the largest distance outside of what
       sampling leaves; near: half of the largest margin, or a step of the logits where that is more.
    2. rate: twice the share beyond `near`, with 3 tokens more: a share of which 3 are expected shows none in 5 % of
       samples. outside: the same of those outside of what sampling leaves, where that is less than all.
    3. chances: the defaults, which hold for any model, or half of the least of any answer where that is less.
    """
    margins: list[NDArray[np.float64]] = []
    cuts: list[NDArray[np.float64]] = []
    chances, windows, rarest = [1.0], [1.0], [1.0]
    logit = 0.0
    for answers in honest:
        logit = max(logit, largest_logit(answers.half(0)))
        for scores in answers.half(0):
            if answers.kind == "greedy":
                margins.append(scores.margin)
                continue
            if "top_k" in REQUESTS[answers.kind]:
                cuts.append(scores.cut)
            if scores.replay is not None:
                margins.append(scores.replay)
            for tokens in LENGTHS:
                part = beginning(scores, tokens)
                for low in (False, True):
                    chances.append(whole_answer(part, low=low).chance)
                    windows.append(worst_window(part, low=low).chance)
                rarest.append(rarest_token(part).chance)
    margin, cut = np.concatenate(margins), np.concatenate(cuts)
    near = max(round(float(margin.max()) / 2, 3), step_of(logit, "bfloat16"))
    return TokenBounds(
        margin=max(round(2 * float(margin.max()), 3), near),
        support=round(2 * float(cut.max()), 3),
        near=near,
        rate=_round((2 * int((margin > near).sum()) + 3) / len(margin)),
        outside=_round((2 * int((cut > 0).sum()) + 3) / len(cut)),
        chance=min(DEFAULT.chance, _round(min(chances) / 2)),
        window_chance=min(DEFAULT.window_chance, _round(min(windows) / 2)),
        token_chance=min(DEFAULT.token_chance, _round(min(rarest) / 2)),
    )


def wider(bounds: TokenBounds, before: dict[str, float]) -> TokenBounds:
    """With no distance and no rate below those of `before`, which other honest answers gave."""
    names = ("margin", "support", "near", "rate", "outside")
    return bounds.model_copy(update={name: max(getattr(bounds, name), before.get(name, 0)) for name in names})


def _round(value: float) -> float:
    return float(f"{value:.1g}")


def table(found: dict[tuple[str, str], Answers], bounds: TokenBounds) -> str:
    lines = [f"| request | text by | answers | {' | '.join(map(str, LENGTHS))} |", "| --- " * (3 + len(LENGTHS)) + "|"]
    for (kind, writer), answers in found.items():
        counts = [answers.rejected(tokens, bounds, 1 if writer == HONEST else None) for tokens in LENGTHS]
        rates = [f"{failed / count:.1%}" if failed else "0" for failed, count in counts]
        lines.append(f"| {kind} | {writer} | {counts[0][1]} | {' | '.join(rates)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--honest", type=int, default=320, help="honest answers of each kind")
    parser.add_argument("--others", type=int, default=80, help="answers of each kind by each other writer")
    parser.add_argument("--write", action="store_true", help=f"put the bounds into {TARGET.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the model is so small that others only get in each other's way
    texts, scorer = Texts(options.folder), Scorer(options.folder)
    honest = range(options.honest)
    others = range(OTHERS_FROM, OTHERS_FROM + options.others)
    pairs = {(kind, writer): honest if writer == HONEST else others for kind in REQUESTS for writer in WRITERS}
    del pairs["greedy", "greedily"]
    texts.by_servers({pair: numbers for pair, numbers in pairs.items() if pair[1] != PERSON})
    found = {}
    for (kind, writer), numbers in pairs.items():
        if writer == PERSON:
            texts.by_a_person(kind, numbers, scorer.prefill)
        written = texts.read(kind, writer)[: len(numbers)]
        numbers = numbers[: len(written)]
        found[kind, writer] = Answers(kind, numbers, written, scorer.scores(kind, writer, numbers, written))
    document = yaml.safe_load(TARGET.read_text("utf-8"))
    bounds = wider(fit(found[kind, HONEST] for kind in REQUESTS), document["tokens"])
    counts = sum(len(found[kind, HONEST].half(0)) for kind in REQUESTS)
    provenance = (
        f"benchmarks/tokens/run.py: twice the worst distances of {counts} honest answers "
        f"of {TOKENS} tokens, or what earlier ones gave where that is more; "
        f"server vLLM {vllm.__version__} on a CPU, verifier transformers (sdpa), both bfloat16"
    )
    bounds = bounds.model_copy(update={"provenance": provenance})
    print(yaml.safe_dump({"tokens": bounds.model_dump()}, sort_keys=False, width=100))
    print(table(found, bounds))
    if options.write:
        # The tests ask the bundled model for more sampled answers than the defaults' false alarms are for.
        chances = {name: value for name, value in document["tokens"].items() if name.endswith("chance")}
        document["tokens"] = {**bounds.model_dump(), **chances}
        TARGET.write_text(yaml.safe_dump(document, sort_keys=False, width=100), encoding="utf-8")


if __name__ == "__main__":
    main()
