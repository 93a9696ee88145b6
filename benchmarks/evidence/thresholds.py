"""Thresholds of a trained model from figures that were made elsewhere: rows of a study and prefills of evidence.

    python benchmarks/evidence/thresholds.py [rows.jsonl ...] --model NAME --out FILE.yaml --kept PREFILLS [...]
        [--known FILE.yaml] [--tokens bounds.yaml] [--pooled COPY ... | --altered NAME=PREFILLS ...] [--said TEXT]

As `toploc calibrate` takes them, by its code: half of the answers give bounds, the others count false alarms. Chunks of
less than 32 tokens are those of prefills.py; whole ones also those of honest rows, by every verifier. No bound is below
that of --known, whose answers were others. PREFILLS of several engines have their answers numbered apart. Bounds on
answers are on the mean error of rows (--pooled), or on the error by channel of prefills (--altered), which have points.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from prefills import kept
from records import Records, Row
from separation import Sample as Figures

from toploc.calibration.bounds import FIGURES, LEAST, ROWS, bounds_from, group, upper_bound
from toploc.calibration.document import Calibration, worst_of
from toploc.calibration.noise import noise_of
from toploc.calibration.pooled import UNNAMED, deviations, halves, pooled_bounds, scores_of
from toploc.calibration.rate import Rate
from toploc.calibration.samples import engine_of
from toploc.errors import ToplocError
from toploc.pooling.spread import chunk_scores
from toploc.scheme import CHUNK_SIZE
from toploc.thresholds.bounds import Bounds, Thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from toploc.calibration.samples import Sample
    from toploc.engine import Facts
    from toploc.thresholds.noise import ChannelNoise
    from toploc.thresholds.pooled import PooledBounds

    Scores = list[tuple[int, list[float]]]

TARGET, TARGET_ANSWER, CONFIDENCE = 1e-4, 1e-3, 0.95
CUT = (1, 4, 16)
APART = 100_000
"""Between the numbers of answers of one source and the next; even, so that halves stay what they are."""


def prefilled(paths: Sequence[Path]) -> list[Sample]:
    """Samples of every file, renumbered."""
    return [
        replace(sample, answer=place * APART + sample.answer)
        for place, path in enumerate(paths)
        for samples in kept(path)
        for sample in samples
    ]


def numbered(rows: Sequence[Row]) -> Iterator[tuple[int, Row, int]]:
    """Of each answer of honest rows a number, its row and its place there. Those that give bounds have even ones, and
    an answer has the same by each verifier."""
    provers = {prover: at for at, prover in enumerate(dict.fromkeys(row.prover for row in rows))}
    for row in rows:
        for place in range(len(row.chunks)):
            half = place // 4 % 2  # as in separation.py: four answers of each eight
            yield 2 * (place + 1000 * provers[row.prover]) + half + 100 * APART, row, place


class Honest:
    """Everything honest of one model."""

    def __init__(self, samples: list[Sample], rows: list[Row]) -> None:
        self.samples, self.rows = samples, rows
        self.paper = Thresholds.paper("bfloat16")

    def libraries(self, rows: int) -> list[str]:
        """That verified chunks of this length."""
        verifiers = [row.verifier for row in self.rows] if rows == CHUNK_SIZE else []
        return list(dict.fromkeys(["transformers", *(verifier.split(",")[0] for verifier in verifiers)]))

    def figures(self, rows: int, half: int, library: str) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
        """Of the chunks of one length by one library: their figures, and the number of the answer of each."""
        chosen = [
            sample
            for sample in self.samples
            if library == "transformers" and group(sample.rows) == rows and sample.answer % 2 == half
        ]
        verdicts = [sample.judge(sample.proof, self.paper) for sample in chosen]
        found = {name: [np.array([getattr(verdict, name) for verdict in verdicts], float)] for name in FIGURES}
        answers = [np.array([sample.answer for sample in chosen], int)]
        for number, row, place in numbered(self.rows) if rows == CHUNK_SIZE else ():
            if number % 2 == half and row.verifier.split(",")[0] == library:
                chunks = Figures.of([[row.chunks[place]]])
                for name in FIGURES:
                    found[name].append(chunks[name][0])
                answers.append(np.full(len(row.chunks[place]), number))
        return {name: np.concatenate(parts) for name, parts in found.items()}, np.concatenate(answers)

    def bounds(self, known: Thresholds | None) -> list[Bounds]:
        """Of each length the largest by any library, and at least what is known: a bound from all together would be too
        low for the noisiest of them."""
        made = []
        for rows in ROWS:
            found = [
                bounds_from(rows, *self.figures(rows, 0, library), target=TARGET, confidence=CONFIDENCE)
                for library in self.libraries(rows)
            ]
            found += [known.for_rows(rows)] if known else []
            made.append(replace(found[0], **{name: max(getattr(one, name) for one in found) for name in FIGURES}))
        return made

    def refused(self, thresholds: Thresholds) -> tuple[Rate, Rate]:
        """Of the half that gave no bounds: chunks, and answers."""
        chunks, beyond, answers, refused = 0, 0, set(), set()
        for rows, library in [(length, of) for length in ROWS for of in self.libraries(length)]:
            figures, numbers = self.figures(rows, 1, library)
            of = thresholds.for_rows(rows)
            over = np.logical_or.reduce([figures[name] > getattr(of, name) for name in FIGURES])
            chunks, beyond = chunks + over.size, beyond + int(over.sum())
            answers |= set(numbers.tolist())
            refused |= set(numbers[over].tolist())
        return Rate.of(beyond, chunks, CONFIDENCE), Rate.of(len(refused), len(answers), CONFIDENCE)

    def scores(self) -> Scores:
        """Of whole chunks, by transformers, whose noise is larger than that of vLLM's prefill."""
        found = scores_of(self.samples, self.paper)
        for number, row, place in numbered(self.rows):
            if row.verifier.startswith("transformers"):
                found.append((number, chunk_scores(Figures.of([[row.chunks[place]]])["mantissa_mean"][0].tolist())))
        return found


def copy_scores(row: Row) -> Scores:
    means = Figures.of([row.chunks])["mantissa_mean"]
    return [(place, chunk_scores(answer.tolist())) for place, answer in enumerate(means)]


def bound_of_any_length(scores: Scores, pooled: PooledBounds) -> float:
    """The largest bound that answers give which are cut to 1, 4 or 16 chunks: the spread of an answer's mean does not
    quite follow from its length, and most answers of a study are long."""
    fitted = halves(scores)[0]
    bounds = [pooled.bound or 0.0]
    for chunks in CUT:
        cut = [answer[:chunks] for answer in fitted if len(answer) >= chunks]
        if len(cut) < LEAST:
            continue
        found = deviations(cut, pooled.honest)
        bounds.append(upper_bound(found, np.arange(len(cut)), share=TARGET_ANSWER, confidence=CONFIDENCE))
    return math.ceil(1000 * max(bounds)) / 1000


def document(args: argparse.Namespace) -> dict[str, Any]:
    rows = [row for path in args.rows for row in Records(path) if row.model == args.model]
    honest = Honest(prefilled(args.kept), [row for row in rows if row.kind == "honest"])
    known = Thresholds.load(args.known) if args.known else None
    bounds = honest.bounds(known)
    calibration = Calibration(honest.samples, bounds, TARGET, CONFIDENCE, "", "")
    made: dict[str, Any] = {"name": args.out.stem, "dtype": "bfloat16", "topk": 128, "model": args.model}
    made |= {"provenance": "being made", "bounds": calibration.listed}
    tried = Thresholds.from_dict(made)
    worst = worst_of(calibration.try_out(tried))
    chunks, answers = honest.refused(tried)
    made["provenance"] = (
        f"benchmarks/evidence/thresholds.py, {datetime.now(UTC):%Y-%m-%d}: {args.said}. For {TARGET:g} false alarms a "
        f"chunk at {CONFIDENCE:.0%} confidence, by an exponential tail of each figure. Held out: {chunks} chunks and "
        f"{answers} answers refused; of proofs made without the computation at most {worst:.2%} accepted"
    )
    if args.tokens:
        made["tokens"] = yaml.safe_load(args.tokens.read_text("utf-8"))["tokens"]
    made["impostor_rate"] = round(worst, 4)
    if args.altered:
        noise = noise_of(honest.samples, args.hidden_size, "bfloat16")
        scores = scores_of(honest.samples, honest.paper, noise)
        copies = {name: scores_of(prefilled([path]), honest.paper, noise) for name, path in args.altered}
        made["pooled"] = _pooled(scores, copies, args.pooled_said, noise, _engine(honest.samples))
    elif args.pooled:
        copies = {
            row.prover: copy_scores(row)
            for row in rows
            if row.prover in args.pooled and row.verifier.startswith("transformers")
        }
        made["pooled"] = _pooled(honest.scores(), copies, args.pooled_said)
    return made


def _pooled(
    scores: Scores, copies: dict[str, Scores], said: str, noise: ChannelNoise | None = None, engine: Facts = UNNAMED
) -> dict[str, Any]:
    made = pooled_bounds(
        scores, copies, target=TARGET_ANSWER, confidence=CONFIDENCE, provenance=said, noise=noise, engine=engine
    )
    return made.model_copy(update={"bound": bound_of_any_length(scores, made)}).model_dump()


def _engine(samples: Sequence[Sample]) -> Facts:
    """What they all say of theirs; nothing, where they are of several."""
    try:
        return engine_of(samples)
    except ToplocError:
        return UNNAMED


def named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="*")
    parser.add_argument("--model", required=True, help="its name in the rows, and as it is served")
    parser.add_argument("--kept", type=Path, nargs="+", required=True, help="what prefills.py kept")
    parser.add_argument("--known", type=Path, help="earlier thresholds")
    parser.add_argument("--tokens", type=Path, help="what benchmarks/tokens/trained.py wrote")
    parser.add_argument("--pooled", nargs="+", default=[], help="rows of copies to test against")
    parser.add_argument(
        "--altered", nargs="+", default=[], type=named, metavar="NAME=PREFILLS", help="of copies to test against"
    )
    parser.add_argument("--hidden-size", type=int, help="with --altered: channels of the model's states")
    parser.add_argument("--pooled-said", default="", help="provenance of the bound on answers")
    parser.add_argument("--said", required=True, help="what the answers are, for the provenance")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.altered and args.hidden_size is None:
        parser.error("--altered: give --hidden-size too")
    made = document(args)
    Thresholds.from_dict(made)
    args.out.write_text(yaml.safe_dump(made, sort_keys=False, width=100, allow_unicode=True), "utf-8")
    print(args.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
