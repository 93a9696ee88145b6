"""Evidence as transformers sees it here, the shortest answers first: samples for a calibration, kept as they come.

    python benchmarks/evidence/prefills.py evidence.jsonl --model FOLDER --name NAME --kept FILE [--seconds 1200]

FILE is a stream of pickles, one an answer, for thresholds.py; the same call goes on where the last one ended. A
sample's answer is the number of its line, so that halves have the same kinds of answers (honest.py).
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING

from toploc.calibration.samples import samples_of_answer
from toploc.evidence.file import items
from toploc.evidence.parse import parse_evidence
from toploc.verifier.prefill import load_prefill
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc.calibration.samples import Sample
    from toploc.evidence.evidence import Evidence


def shortest_first(path: Path, verifier: TransformersVerifier) -> list[tuple[int, Evidence]]:
    with path.open("rb") as stream:
        found = [(line, parse_evidence(data, verifier.prefill.sampling_defaults)) for line, data in items(stream)]
    return sorted(found, key=lambda item: sum(len(answer.token_ids) for answer in item[1].answers))


def kept(path: Path) -> Iterator[list[Sample]]:
    """Of each answer, its chunks; an answer that a kill cut off is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except (EOFError, pickle.UnpicklingError):
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evidence", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1200.0, help="begin nothing after so long")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    began = time.monotonic()
    verifier = TransformersVerifier(load_prefill(args.model, None, args.device), names=[args.name], scored=False)
    done = {sample.answer for samples in kept(args.kept) for sample in samples}
    left = [item for item in shortest_first(args.evidence, verifier) if item[0] not in done]
    args.kept.parent.mkdir(parents=True, exist_ok=True)
    with args.kept.open("ab") as file:
        for place, (number, evidence) in enumerate(left):
            if time.monotonic() - began > args.seconds:
                break
            [answer] = evidence.answers
            pickle.dump(samples_of_answer(evidence, answer, number, verifier), file)
            if place % 20 == 0:
                file.flush()
                print(f"{time.monotonic() - began:6.1f} s  {place} of {len(left)}", flush=True)


if __name__ == "__main__":
    main()
