"""Other statistics of an answer from the same bytes, point by point: what finds an alteration in 128 tokens?

    python benchmarks/evidence/pointwise.py POINTS=HIDDEN [POINTS=HIDDEN ...] [--chunks 4]

POINTS is a folder of one model that points.py wrote, HIDDEN its hidden size. Answers are cut into pieces of --chunks
chunks. What a statistic knows of the model (noise by rank and by channel) comes from one half of the honest answers,
and so does its bound, which a share 1e-3 of honest pieces exceeds; pieces of the other half count false alarms. Nothing
is fitted to altered answers, but for the likelihood ratios: one is fitted to every altered row but the one in question,
the other to the altered rows of the other models.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toploc.calibration.bounds import upper_bound
from toploc.calibration.rate import Rate
from toploc.proofs.field import evaluate
from toploc.proofs.format import decode_proof
from toploc.scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FALSE_ALARM, CONFIDENCE = 1e-3, 0.95
HONEST = re.compile("CUDA-graphs|eager-prefill|Triton-attention")
FARTHEST = 64.0
"""Steps: a point that is farther away counts as so far."""

BUCKETS = 8
"""Of 16 ranks each."""


@dataclass(frozen=True, slots=True)
class Points:
    """Of one row and verifier: arrays [answers, chunks, 128], points in the order of their magnitude.

    `off`: claimed less own in steps of the last place, the sign being the own one's, at most `FARTHEST` either way.
    `error`: the same as a difference of numbers. `channel`: of the hidden state.
    """

    off: Floats
    error: Floats
    channel: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path, hidden: int) -> Points:
        with np.load(path) as saved:
            proofs, indices, own = (
                saved["proofs"],
                saved["indices"].astype(np.int64),
                saved["patterns"].astype(np.int64),
            )
        order = np.argsort(-(own & 0x7FFF), axis=-1, kind="stable")
        indices, own = (np.take_along_axis(values, order, -1) for values in (indices, own))
        claimed = np.empty_like(own)
        for place in np.ndindex(proofs.shape[:2]):
            proof = decode_proof(proofs[place].tobytes())
            claimed[place] = evaluate(proof.coefficients, (indices[place] % proof.modulus).astype(np.uint16))
        sign = np.where((claimed ^ own) & 0x8000, -1, 1)
        off = np.clip(sign * (claimed & 0x7FFF) - (own & 0x7FFF), -FARTHEST, FARTHEST).astype(np.float64)
        step = _number((own & 0x7FFF) + 1) - _number(own & 0x7FFF)
        return cls(off, off * step * np.where(own & 0x8000, -1, 1), indices % hidden)

    def pieces(self, chunks: int) -> Points:
        """Each of so many chunks in the place of an answer."""
        _, width, points = self.off.shape
        kept = width // chunks * chunks
        parts = (values[:, :kept].reshape(-1, chunks, points) for values in (self.off, self.error, self.channel))
        return Points(*parts)  # type: ignore[arg-type]

    def part(self, chosen: NDArray[np.bool_]) -> Points:
        return Points(self.off[chosen], self.error[chosen], self.channel[chosen])


def _number(patterns: NDArray[np.int64]) -> Floats:
    """Of bfloat16 bits."""
    return (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class Noise:
    """What honest points look like: root mean squares of steps by rank and channel, and of errors by channel."""

    def __init__(self, honest: Points, hidden: int) -> None:
        self.honest = honest
        self.rank = np.sqrt((honest.off**2).mean((0, 1)))
        flat = honest.channel.ravel()
        counts = np.bincount(flat, minlength=hidden)
        total = np.bincount(flat, (honest.error**2).ravel(), minlength=hidden)
        every = total.sum() / counts.sum()
        # Channels that are seldom among the largest are taken for usual ones.
        self.channel = np.sqrt((total + 16 * every) / (counts + 16))
        steps = np.bincount(flat, (honest.off**2).ravel(), minlength=hidden)
        self.steps = np.sqrt((steps + 16 * steps.sum() / counts.sum()) / (counts + 16))

    def statistics(self) -> dict[str, Callable[[Points], Floats]]:
        """By name: the higher, the less honest. Each gives float64[pieces]."""
        return {
            "mean error (as shipped)": lambda p: np.log(np.abs(p.off).mean(-1) + 0.02).mean(-1),
            "mean square of steps": lambda p: np.log((p.off**2).mean((1, 2)) + 1e-3),
            "share of points off": lambda p: (p.off != 0).mean((1, 2)),
            "logarithms of steps": lambda p: np.log1p(np.abs(p.off)).mean((1, 2)),
            "logarithms by channel": lambda p: np.log1p(4 * np.abs(p.error) / self.channel[p.channel]).mean((1, 2)),
            "steps by rank": lambda p: np.log((np.abs(p.off) / self.rank).mean((1, 2)) + 1e-3),
            "steps by channel": lambda p: np.log((np.abs(p.off) / self.steps[p.channel]).mean((1, 2)) + 1e-3),
            "errors by channel": lambda p: np.log((np.abs(p.error) / self.channel[p.channel]).mean((1, 2)) + 1e-3),
            "squares by channel": lambda p: np.log(((p.error / self.channel[p.channel]) ** 2).mean((1, 2)) + 1e-3),
            "signed, all points": lambda p: np.abs(p.off.mean((1, 2))),
            "signed by channel": self.signed,
        }

    def signed(self, p: Points) -> Floats:
        """Σ over channels of (Σ of its standardised signed errors)² / its points: a bias that stays through a piece."""
        found = np.empty(len(p.off))
        scaled = p.error / self.channel[p.channel]
        for place, (values, channels) in enumerate(zip(scaled, p.channel, strict=True)):
            sums = np.bincount(channels.ravel(), values.ravel(), minlength=len(self.channel))
            counts = np.bincount(channels.ravel(), minlength=len(self.channel))
            found[place] = (sums**2 / np.maximum(counts, 1)).sum() / (counts > 0).sum()
        return np.log(found + 1e-6)

    def features(self, p: Points) -> Floats:
        """[pieces, features]: steps by buckets of ranks, the signed mean and channels' bias."""
        steps = np.log1p(np.abs(p.off)).reshape(*p.off.shape[:2], BUCKETS, -1).mean((1, 3))
        return np.column_stack([steps, p.off.mean((1, 2)), self.signed(p), (p.off == 0).mean((1, 2))])


class Discriminant:
    """Fisher's linear discriminant with the honest covariance, of features in units of the honest ones' spread, so that
    its weights can be tried on another model."""

    def __init__(self, honest: Floats) -> None:
        self.mean, self.scale = honest.mean(0), honest.std(0) + 1e-9
        self.covariance = np.cov(self.standard(honest), rowvar=False) + 1e-3 * np.eye(honest.shape[1])

    def standard(self, features: Floats) -> Floats:
        found: Floats = (features - self.mean) / self.scale
        return found

    def weights(self, altered: Floats) -> Floats:
        found: Floats = np.linalg.solve(self.covariance, self.standard(altered).mean(0))
        return found


class Study:
    """One model by one verifier: honest pieces in halves, and altered ones."""

    def __init__(self, rows: dict[str, Points], hidden: int) -> None:
        honest = [points for name, points in rows.items() if HONEST.search(name)]
        self.altered = {name: points for name, points in rows.items() if not HONEST.search(name)}
        self.fitted, self.held = (_joined([_half(points, which) for points in honest]) for which in (0, 1))
        self.noise = Noise(self.fitted, hidden)
        self.discriminant = Discriminant(self.noise.features(self.fitted))

    def weights(self, without: str = "") -> Floats:
        known = [self.noise.features(points) for name, points in self.altered.items() if name != without]
        return self.discriminant.weights(np.concatenate(known))

    def ratio(self, weights: Floats) -> Callable[[Points], Floats]:
        return lambda points: self.discriminant.standard(self.noise.features(points)) @ weights

    def found(self, score: Callable[[Points], Floats], points: Points) -> Rate:
        pieces = np.arange(len(self.fitted.off)) // 4
        bound = upper_bound(score(self.fitted), pieces, share=FALSE_ALARM, confidence=CONFIDENCE)
        beyond = score(points) > bound
        return Rate.of(int(beyond.sum()), beyond.size)

    def table(self, others: list[Study]) -> str:
        lines = [f"| statistic | the model, held out | {' | '.join(self.altered)} |"]
        lines.append("| --- " * (2 + len(self.altered)) + "|")
        rows = {"": self.held, **self.altered}
        for name, score in self.noise.statistics().items():
            lines.append(_line(name, [self.found(score, points) for points in rows.values()]))
        if len(self.altered) > 1:
            rates = [self.found(self.ratio(self.weights(row)), points) for row, points in rows.items()]
            lines.append(_line("likelihood ratio, other alterations", rates))
        if others:
            weights = np.mean([other.weights() for other in others], axis=0)
            rates = [self.found(self.ratio(weights), points) for points in rows.values()]
            lines.append(_line("likelihood ratio, other models", rates))
        return "\n".join(lines)


def _line(name: str, rates: list[Rate]) -> str:
    return f"| {name} | {' | '.join(map(str, rates))} |"


def _half(points: Points, which: int) -> Points:
    """Four answers of each eight: kinds of prompts alternate."""
    return points.part(np.arange(len(points.off)) // 16 % 2 == which)


def _joined(parts: list[Points]) -> Points:
    return Points(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("off", "error", "channel")))


def load(folder: Path, hidden: int, chunks: int) -> dict[str, Study]:
    """By the library that verified."""
    rows: defaultdict[str, dict[str, Points]] = defaultdict(dict)
    for path in sorted(folder.glob("*.npz")):
        name, _, verifier = re.sub(r"-(transformers|vLLM)-(\w+)\.npz$", r"|\1 \2", path.name).partition("|")
        rows[verifier.split()[0]][name] = Points.load(path, hidden).pieces(chunks)
    return {verifier: Study(found, hidden) for verifier, found in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", nargs="+", metavar="POINTS=HIDDEN")
    parser.add_argument("--chunks", type=int, default=4)
    args = parser.parse_args()
    models = []
    for text in args.points:
        folder, _, hidden = text.rpartition("=")
        models.append((folder, load(Path(folder), int(hidden), args.chunks)))
    for folder, studies in models:
        for verifier, study in studies.items():
            others = [other[verifier] for name, other in models if name != folder and verifier in other]
            print(f"### {folder}, pieces of {args.chunks * CHUNK_SIZE} tokens, verifier {verifier}\n")
            print(study.table(others), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
