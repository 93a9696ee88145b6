"""What the error by channel finds of answers of 32, 64 and 128 tokens, beside the mean error, from prefills.

python benchmarks/evidence/by_channel.py HIDDEN_SIZE --honest PREFILLS --altered NAME=PREFILLS ...

PREFILLS are what prefills.py kept. As `toploc calibrate --pooled`: half of the honest answers give noise and bounds,
the other half is the first row. An answer of fewer tokens is the beginning of a longer one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thresholds import CONFIDENCE, TARGET_ANSWER, named, prefilled

from toploc.calibration.noise import noise_of
from toploc.calibration.pooled import deviations, gain, halves, pooled_bounds, scores_of
from toploc.calibration.rate import Rate
from toploc.calibration.tables import audits_cells, markdown
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toploc.calibration.samples import Sample
    from toploc.thresholds.noise import ChannelNoise
    from toploc.thresholds.pooled import PooledBounds

CHUNKS = (1, 2, 4)
PAPER = Thresholds.paper()


def found(answers: Sequence[Sequence[float]], bounds: PooledBounds, chunks: int) -> Rate:
    """Answers of so many chunks or more, cut to that, that are beyond the bound."""
    cut = [scores[:chunks] for scores in answers if len(scores) >= chunks]
    return Rate.of(int((deviations(cut, bounds.honest) > (bounds.bound or 0.0)).sum()), len(cut))


def table(honest: Sequence[Sample], altered: dict[str, Sequence[Sample]], noise: ChannelNoise | None) -> str:
    scores = scores_of(honest, PAPER, noise)
    copies = {name: scores_of(samples, PAPER, noise) for name, samples in altered.items()}
    bounds = pooled_bounds(
        scores, copies, target=TARGET_ANSWER, confidence=CONFIDENCE, provenance="a comparison", noise=noise
    )
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
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hidden_size", type=int)
    parser.add_argument("--honest", required=True, type=Path)
    parser.add_argument("--altered", nargs="+", required=True, type=named, metavar="NAME=PREFILLS")
    args = parser.parse_args()
    honest = prefilled([args.honest])
    altered = {name: prefilled([path]) for name, path in args.altered}
    noise = noise_of(honest, args.hidden_size, PAPER.dtype)
    print(f"By the mean error:\n\n{table(honest, altered, None)}\n")
    known = f"{len(noise.channels)} of {args.hidden_size} with noise of their own"
    print(f"By channel, {known}:\n\n{table(honest, altered, noise)}")


if __name__ == "__main__":
    main()
