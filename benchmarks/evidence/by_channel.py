"""What the error by channel finds of answers of 32, 64 and 128 tokens, beside the mean error, from prefills.

python benchmarks/evidence/by_channel.py HIDDEN_SIZE --honest PREFILLS --altered NAME=PREFILLS ...

PREFILLS are what prefills.py kept. As `toploc calibrate --pooled`: half of the honest answers give noise and bounds,
the other half is the first row. An answer of fewer tokens is the beginning of a longer one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from prefills import kept

from toploc.calibration.noise import noise_of
from toploc.calibration.pooled import deviations, gain, halves, pooled_bounds, scores_of
from toploc.calibration.rate import Rate
from toploc.calibration.tables import audits_cells
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toploc.calibration.samples import Sample
    from toploc.thresholds.noise import ChannelNoise
    from toploc.thresholds.pooled import PooledBounds

CHUNKS = (1, 2, 4)
TARGET, CONFIDENCE = 1e-3, 0.95
PAPER = Thresholds.paper()


def found(answers: Sequence[Sequence[float]], bounds: PooledBounds, chunks: int) -> Rate:
    """Answers of so many chunks or more, cut to that, that are beyond the bound."""
    cut = [scores[:chunks] for scores in answers if len(scores) >= chunks]
    return Rate.of(int((deviations(cut, bounds.honest) > (bounds.bound or 0.0)).sum()), len(cut))


def table(honest: Sequence[Sample], altered: dict[str, Sequence[Sample]], noise: ChannelNoise | None) -> str:
    scores = scores_of(honest, PAPER, noise)
    copies = {name: scores_of(samples, PAPER, noise) for name, samples in altered.items()}
    bounds = pooled_bounds(scores, copies, target=TARGET, confidence=CONFIDENCE, provenance="a comparison", noise=noise)
    head = [
        "answers of",
        *(f"{32 * chunks} tokens" for chunks in CHUNKS),
        "audits, all altered",
        "half",
        "30 %",
        "10 %",
    ]
    writers = {"the model, held out": (halves(scores)[1], ["-"] * 4)}
    for name, answers in copies.items():
        audits = audits_cells(gain(answers, bounds, scores, name).audits)
        writers[name] = [one for _, one in answers], audits
    rows = [
        [name, *(str(found(answers, bounds, c)) for c in CHUNKS), *audits]
        for name, (answers, audits) in writers.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _samples(path: str) -> list[Sample]:
    return [sample for samples in kept(Path(path)) for sample in samples]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hidden_size", type=int)
    parser.add_argument("--honest", required=True)
    parser.add_argument("--altered", nargs="+", required=True, metavar="NAME=PREFILLS")
    args = parser.parse_args()
    honest = _samples(args.honest)
    altered = {name: _samples(path) for name, path in (text.split("=", 1) for text in args.altered)}
    noise = noise_of([sample for sample in honest if sample.answer % 2 == 0], args.hidden_size, PAPER.dtype)
    print(f"By the mean error:\n\n{table(honest, altered, None)}\n")
    known = f"{len(noise.channels)} of {args.hidden_size} with noise of their own"
    print(f"By channel, {known}:\n\n{table(honest, altered, noise)}")


if __name__ == "__main__":
    main()
