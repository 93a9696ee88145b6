"""After how many short answers their pooled surprise raises an alarm (`toploc.pooling.surprise`).

    python benchmarks/tokens/pooled.py FOLDER

FOLDER is that of run.py, after it. Prints for each writer of sampled text the number of the answer at which the alarm
is, or the highest sum and the alarm's where it is not reached, over all answers there are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scoring import COLUMNS, beginning
from texts import REQUESTS, WRITERS

from toploc.pooling.surprise import PooledSurprise
from toploc.tokens.scores import TokenScores
from toploc.tokens.surprisal import log_ratios

LENGTHS = (8, 32, 256)


def alarm(path: Path, tokens: int) -> str:
    columns = dict(np.load(path))
    count = len(columns["margin"])
    test = PooledSurprise()
    for i in range(count):
        scores = TokenScores(**{name: columns[name][i] for name in COLUMNS if name in columns})
        test.add(log_ratios(beginning(scores, tokens)))
        if test.raised:
            return f"{test.answers}"
    return f"none in {count} ({test.highest:.1f} of {test.threshold:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(f"| request | text by | {' | '.join(map(str, LENGTHS))} |")
    for kind in REQUESTS:
        for writer in WRITERS:
            path = folder / f"{kind}-{writer}.npz"
            if kind != "greedy" and path.exists():
                print(f"| {kind} | {writer} | {' | '.join(alarm(path, tokens) for tokens in LENGTHS)} |")


if __name__ == "__main__":
    main()
