"""Evidence of a model's answers for `toploc calibrate`: one engine, several temperatures and numbers at once.

    python benchmarks/evidence/honest.py FOLDER --name NAME --output evidence.jsonl [--answers 600] [-- ENGINE OPTIONS]

Answers have 1 to --tokens tokens, with last chunks of every length, as by `toploc generate --vary_length`; prompts are
text that people wrote (models/prompts.py). Temperatures are 0, 0.7 and 1, two answers each in turn, since calibration
takes bounds from every second answer. With --weights KIND a copy (`models.alter`) answers under the model's name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from questions import of_people
from toploc_proxy.experiment import generate
from toploc_proxy.experiment.folder import load_llm

from models import alter
from toploc.evidence.file import EvidenceFile

TEMPERATURES = (0.0, 0.7, 1.0)
AT_ONCE = (256, 64, 64, 16, 16, 16, 1, 1, 1)
"""Answers that the engine gets together, in turn."""

ALTERED_FROM = 100_000
"""Prompts of copies begin here."""


def bodies(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The requests, as `toploc generate` makes them."""
    flags = ["--model_name", args.name, "--max_decode_tokens", str(args.tokens), "--vary_length"]
    flags += ["--route", args.route, "--top_p", "1"]
    made = generate.parser().parse_args(flags)
    found = []
    for number in range(args.answers):
        made.temperature = TEMPERATURES[number // 2 % len(TEMPERATURES)]
        prompt = of_people(args.first + number + (ALTERED_FROM if args.weights else 0))
        found.append(generate.request(made, number, [{"role": "user", "content": prompt}]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True, help="that the model is served as")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=600)
    parser.add_argument("--first", type=int, default=0, help="number of the first prompt")
    parser.add_argument("--tokens", type=int, default=2048, help="of an answer, at most")
    parser.add_argument("--weights", choices=sorted(alter.KINDS), help="of a copy")
    parser.add_argument("--seconds", type=float, default=400.0, help="begin nothing after so long")
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    began = time.monotonic()
    args.route = "chat" if (args.folder / "chat_template.jinja").exists() else "completion"
    left, file = bodies(args), EvidenceFile(args.output)
    from toploc_proxy.engines.vllm.offline.answers import answer

    with tempfile.TemporaryDirectory() as made:
        weights = alter.make(args.weights, args.folder, Path(made) / "copy") if args.weights else args.folder
        with load_llm(str(weights), args.name, dtype="bfloat16", tp=1, options=options) as llm:
            for size in cycle(AT_ONCE):
                if not left or time.monotonic() - began > args.seconds:
                    break
                batch, left = left[:size], left[size:]
                for body, response in zip(batch, answer(llm, args.route, batch), strict=True):
                    file.append(body, response)
                print(f"{time.monotonic() - began:6.1f} s  {args.output.name}: {len(left)} left", flush=True)


if __name__ == "__main__":
    main()
