"""How often an answer of some length is found out, at a fixed rate of false alarms: a table and a plot, from rows.

    python benchmarks/evidence/lengths.py rows.jsonl FOLDER

Writes lengths.md, and for each model a plot as MODEL-light.svg and MODEL-dark.svg, into FOLDER.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from records import Records, Row, write_by_command
from separation import Sample, log_mean

from toploc.calibration.bounds import FIGURES, upper_bound
from toploc.calibration.rate import Rate
from toploc.scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CHUNKS = (1, 4, 16, 64)
FALSE_ALARM = 1e-3
"""Of an answer, of any length: half for bounds on its chunks, half for the bound on its mean error."""

CONFIDENCE = 0.95
ALWAYS = 0.99
HARDLY = 0.05
"""Found in so many of the shortest answers, or in no more of any, an alteration shares a line of the plot."""

LINE = 3.6
"""Height of a line of a name, in per cent of the plot's."""

THEMES = {"light": ("#ffffff", "#1f2328", "#d0d7de"), "dark": ("#0d1117", "#e6edf3", "#30363d")}
"""Ground, text and lines of a page."""

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#ee7733", "#009988")


@dataclass(frozen=True, slots=True)
class Test:
    """Bounds for answers of so many chunks, from the honest ones of one half."""

    chunks: int
    figures: dict[str, float]
    mean: float
    fitted: int

    @classmethod
    def fit(cls, honest: Sample, chunks: int) -> Test:
        """1. Each figure of a chunk has a third of its part of half the rate (Bonferroni).
        2. The logarithm of the mean mantissa error, averaged over the chunks, has the other half."""
        answers = np.arange(len(honest.figures))
        share = FALSE_ALARM / 2 / chunks / len(FIGURES)
        figures = {
            name: upper_bound(
                honest[name][:, :chunks].ravel(), answers.repeat(chunks), share=share, confidence=CONFIDENCE, step=step
            )
            for name, step in FIGURES.items()
        }
        means = log_mean(honest)[:, :chunks].mean(axis=1)
        mean = upper_bound(means, answers, share=FALSE_ALARM / 2, confidence=CONFIDENCE)
        return cls(chunks, figures, mean, len(answers))

    def finds(self, sample: Sample) -> NDArray[np.bool_]:
        """Of each answer, whether it is beyond a bound, by its first chunks."""
        beyond = [(sample[name][:, : self.chunks] > bound).any(axis=1) for name, bound in self.figures.items()]
        found: NDArray[np.bool_] = np.logical_or.reduce(
            [*beyond, log_mean(sample)[:, : self.chunks].mean(axis=1) > self.mean]
        )
        return found


def detection(rows: Sequence[Row], verifier: str) -> dict[str, dict[int, Rate]]:
    """Of one model's alterations by one verifier, and of honest answers that gave no bounds: what is found, by chunks.

    Of each length the answers are those of long rows where these alone have it, and of other rows else.
    """
    honest = [row for row in rows if row.kind == "honest" and row.verifier == verifier]
    altered = [row for row in rows if row.kind == "altered" and row.verifier == verifier]
    found: defaultdict[str, dict[int, Rate]] = defaultdict(dict)
    for chunks in CHUNKS:
        whole = [cut for row in honest if (cut := _cut(row, chunks))]
        if not whole:
            continue
        sample = Sample.of(whole)
        test = Test.fit(sample.half(0), chunks)
        found["the model, held out"][chunks] = _rate(test.finds(sample.half(1)))
        for row in altered:
            cut = _cut(row, chunks)
            if cut and (row.name == row.prover or chunks not in found[row.name]):
                found[row.name][chunks] = _rate(test.finds(Sample.of([cut])))
    return {name: rates for name, rates in found.items() if rates}


def _cut(row: Row, chunks: int) -> list[list[list[float]]]:
    """Answers that are so long, without what comes after; a server may have ended some before."""
    return [answer[:chunks] for answer in row.chunks if len(answer) >= chunks]


def _rate(found: NDArray[np.bool_]) -> Rate:
    return Rate.of(int(found.sum()), found.size)


def table(found: dict[str, dict[int, Rate]]) -> str:
    heads = [f"{chunks * CHUNK_SIZE:,} tokens" for chunks in CHUNKS]
    lines = [f"| answers of | {' | '.join(heads)} |", "| --- " * (1 + len(CHUNKS)) + "|"]
    for name, rates in found.items():
        cells = [str(rates[chunks]) if chunks in rates else "" for chunks in CHUNKS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, dict[str, dict[int, Rate]]], model: str, folder: Path) -> None:
    """One panel a verifier, one line an alteration, its name at its end, in the same color in each panel."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    slug = re.sub(r"[^A-Za-z0-9]+", "-", model)
    apart = dict.fromkeys(name for rates in found.values() for name in rates if not _alike(rates[name]))
    color = {name: COLORS[place % len(COLORS)] for place, name in enumerate(apart)}
    for theme, (ground, text, line) in THEMES.items():
        colors = {"text.color": text, "axes.labelcolor": text, "xtick.color": text, "ytick.color": text}
        colors |= {"axes.edgecolor": line, "grid.color": line, "figure.facecolor": ground, "axes.facecolor": ground}
        # Text stays text: a tenth of the size of its outlines.
        with plt.rc_context({**colors, "svg.hashsalt": slug, "svg.fonttype": "none", "font.size": 9}):
            figure, axes = plt.subplots(len(found), 1, figsize=(8.4, 4.0 * len(found)), squeeze=False)
            for axis, (verifier, rates) in zip(axes[:, 0], found.items(), strict=True):
                _panel(axis, rates, color)
                axis.set_title(f"{model}, verifier {verifier}", fontsize=10)
            figure.subplots_adjust(
                left=0.08, right=0.56, top=1 - 0.08 / len(found), bottom=0.12 / len(found), hspace=0.32
            )
            figure.savefig(folder / f"{slug}-{theme}.svg", metadata={"Date": None})
            plt.close(figure)


def _alike(rates: dict[int, Rate]) -> str:
    """Of an alteration that shares its line with others: which; nothing else."""
    first = rates.get(CHUNKS[0])
    if first and first.share >= ALWAYS:
        return "always"
    return "hardly" if max(rate.share for rate in rates.values()) <= HARDLY else ""


def _panel(axis: Any, rates: dict[str, dict[int, Rate]], color: dict[str, str]) -> None:
    last = max(CHUNKS[at] for at in range(len(CHUNKS)) if any(CHUNKS[at] in of for of in rates.values())) * CHUNK_SIZE
    ends = []
    for kind, height in (("always", 100.0), ("hardly", 0.0)):
        alike = [name for name, of in rates.items() if _alike(of) == kind]
        if alike:
            axis.plot([CHUNKS[0] * CHUNK_SIZE, last], [height] * 2, color="gray", linewidth=3)
            ends.append((height, f"{kind.capitalize()}: {', '.join(alike)}", "gray"))
    for name, of in rates.items():
        if not _alike(of):
            points = [(chunks * CHUNK_SIZE, 100 * rate.share) for chunks, rate in sorted(of.items())]
            axis.plot(*zip(*points, strict=True), color=color[name], marker="o", markersize=3)
            ends.append((points[-1][1], name, color[name]))
    _label(axis, ends)
    axis.set(xscale="log", xlabel="tokens of an answer", ylabel="found, % of answers", ylim=(-3, 104))
    ticks = [chunks * CHUNK_SIZE for chunks in CHUNKS]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(ticks[0] * 0.9, ticks[-1] * 1.1)
    axis.grid(visible=True, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _label(axis: Any, ends: list[tuple[float, str, str]]) -> None:
    """Names at the right, in the order of the lines' ends, none upon another, and none below the panel."""
    texts = [(y, textwrap.fill(name, 58), color) for y, name, color in sorted(ends, reverse=True)]
    heights = [LINE * (text.count("\n") + 1) + 1.5 for _, text, _ in texts]
    tops: list[float] = []
    below = sum(heights)
    height = 104.0
    for (y, _, _), needed in zip(texts, heights, strict=True):
        tops.append(min(height, max(y + LINE / 2, below)))
        height, below = tops[-1] - needed, below - needed
    for top, (_, text, color) in zip(tops, texts, strict=True):
        axis.annotate(
            text, (1.02, (top + 3) / 107), xycoords="axes fraction", color=color, fontsize=7, va="top", linespacing=1.1
        )


def write(records: Path, folder: Path) -> str:
    """Everything; also returns the text."""
    models: defaultdict[str, list[Row]] = defaultdict(list)
    for row in Records(records):
        models[row.model].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for model, rows in models.items():
        verifiers = dict.fromkeys(row.verifier for row in rows if row.kind == "altered")
        found = {verifier: detection(rows, verifier) for verifier in verifiers}
        found = {verifier: rates for verifier, rates in found.items() if len(rates) > 1}
        parts += [f"### {model}, verifier {verifier}\n\n{table(rates)}" for verifier, rates in found.items()]
        if found:
            plot(found, model, folder)
    text = "\n".join(parts)
    (folder / "lengths.md").write_text(text, "utf-8")
    return text


if __name__ == "__main__":
    write_by_command(__doc__, write)
