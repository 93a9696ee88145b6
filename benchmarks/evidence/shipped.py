"""What a thresholds file finds of a study's rows, by its bounds on chunks and on an answer: of 32, 128 and 512 tokens.

python benchmarks/evidence/shipped.py rows.jsonl [...] --model NAME [--thresholds NAME]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from records import LONG, Records, Row
from separation import Sample

from toploc.calibration.bounds import FIGURES
from toploc.pooling.spread import chunk_scores
from toploc.scheme import CHUNK_SIZE
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable

LENGTHS = (32, 128, 512)
HONEST = "the model"


def refused(row: Row, thresholds: Thresholds, tokens: int) -> tuple[int, int]:
    """Of the answers of a row that are so long, cut to that: how many are beyond a bound, and how many there are."""
    chunks = tokens // CHUNK_SIZE
    answers = [answer[:chunks] for answer in row.chunks if len(answer) >= chunks]
    if not answers:
        return 0, 0
    sample, bounds = Sample.of([answers]), thresholds.for_rows(CHUNK_SIZE)
    beyond = sum(sample[name] > getattr(bounds, name) for name in FIGURES).any(axis=1)
    if thresholds.pooled and thresholds.pooled.bound is not None:
        scores = [fmean(chunk_scores(means)) for means in sample["mantissa_mean"].tolist()]
        spread, bound = thresholds.pooled.honest, thresholds.pooled.bound
        beyond |= [spread.deviations(score, chunks) > bound for score in scores]
    return int(beyond.sum()), len(answers)


def table(rows: Iterable[Row], thresholds: Thresholds) -> str:
    """By the library that verified; honest rows together."""
    counts: defaultdict[tuple[str, str], list[list[int]]] = defaultdict(lambda: [[0, 0] for _ in LENGTHS])
    for row in rows:
        if row.kind == "honest" or not row.prover.endswith(LONG):
            name = HONEST if row.kind == "honest" else row.prover
            for cell, tokens in zip(counts[row.verifier.split(",")[0], name], LENGTHS, strict=True):
                for at, count in enumerate(refused(row, thresholds, tokens)):
                    cell[at] += count
    lines = [f"| verifier | answers of | {' | '.join(f'{tokens} tokens' for tokens in LENGTHS)} |", "| --- " * 5 + "|"]
    for (library, name), cells in counts.items():
        lines.append(f"| {library} | {name} | {' | '.join(f'{n:,} of {total:,}' for n, total in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--thresholds", help="name or file (default: the model's)")
    args = parser.parse_args()
    rows = [row for path in args.rows for row in Records(path) if row.model == args.model]
    print(table(rows, Thresholds.load(args.thresholds or args.model)), end="")


if __name__ == "__main__":
    main()
