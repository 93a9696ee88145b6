"""How often an answer of some length is found out, at a fixed rate of false alarms: a table and a plot, from rows.

    python benchmarks/evidence/lengths.py rows.jsonl FOLDER

Writes lengths.md, and for each model a plot as MODEL-light.svg and MODEL-dark.svg (PNG beside them), into FOLDER.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from records import Records, Row
from separation import Sample, log_mean

from toploc.calibration.bounds import FIGURES, upper_bound
from toploc.calibration.rate import Rate
from toploc.scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CHUNKS = (1, 4, 16, 64)
FALSE_ALARM = 1e-3
"""Of an answer, of any length: half for bounds on its chunks, half for the bound on its mean error."""

CONFIDENCE = 0.95
ALWAYS = 0.99
"""Found in so many of the shortest answers, an alteration shares a line of the plot with others."""

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
        whole = [[answer[:chunks] for answer in row.chunks] for row in honest if len(row.chunks[0]) >= chunks]
        if not whole:
            continue
        sample = Sample.of(whole)
        test = Test.fit(sample.half(0), chunks)
        found["the model, held out"][chunks] = _rate(test.finds(sample.half(1)))
        for row in altered:
            if len(row.chunks[0]) >= chunks and (row.name == row.prover or chunks not in found[row.name]):
                cut = Sample.of([[answer[:chunks] for answer in row.chunks]])
                found[row.name][chunks] = _rate(test.finds(cut))
    return {name: rates for name, rates in found.items() if rates}


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
    """One panel a verifier, one line an alteration, its name at its end."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    slug = re.sub(r"[^A-Za-z0-9]+", "-", model)
    for theme, (ground, text, line) in THEMES.items():
        colors = {"text.color": text, "axes.labelcolor": text, "xtick.color": text, "ytick.color": text}
        colors |= {"axes.edgecolor": line, "grid.color": line, "figure.facecolor": ground, "axes.facecolor": ground}
        with plt.rc_context({**colors, "svg.hashsalt": slug, "font.size": 9}):
            figure, axes = plt.subplots(1, len(found), figsize=(7.2 * len(found), 4.6), squeeze=False)
            for axis, (verifier, rates) in zip(axes[0], found.items(), strict=True):
                _panel(axis, rates)
                axis.set_title(f"{model}, verifier {verifier}", fontsize=10)
            figure.tight_layout()
            for ending in ("svg", "png"):
                dated = {"metadata": {"Date": None}} if ending == "svg" else {}
                figure.savefig(folder / f"{slug}-{theme}.{ending}", dpi=110, **dated)
            plt.close(figure)


def _panel(axis: Any, rates: dict[str, dict[int, Rate]]) -> None:
    shown = {
        name: [(chunks * CHUNK_SIZE, 100 * rate.share) for chunks, rate in sorted(of.items())]
        for name, of in rates.items()
    }
    least = CHUNKS[0]
    together = [name for name, of in rates.items() if least in of and of[least].share >= ALWAYS]
    ends = []
    for place, (name, points) in enumerate(item for item in shown.items() if item[0] not in together):
        honest = name.startswith("the model")
        color = "gray" if honest else COLORS[place % len(COLORS)]
        axis.plot(*zip(*points, strict=True), color=color, linestyle=":" if honest else "-", marker="o", markersize=3)
        ends.append((points[-1][1], points[-1][0], name, color))
    if together:
        last = max(x for name in together for x, _ in shown[name])
        axis.plot([least * CHUNK_SIZE, last], [100, 100], color=COLORS[0], linewidth=3)
        ends.append((100.0, last, _listed(together), COLORS[0]))
    _label(axis, ends)
    axis.set(xscale="log", xlabel="tokens of an answer", ylabel="found, % of answers", ylim=(-3, 104))
    ticks = [chunks * CHUNK_SIZE for chunks in CHUNKS]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(ticks[0] * 0.9, ticks[-1] * 1.1)
    axis.grid(visible=True, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _label(axis: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Names at the right, at least a line apart, in the order of the lines' ends."""
    height = 104.0
    for y, _, name, color in sorted(ends, reverse=True):
        lines = name.count("\n") + 1
        height = min(y + 1.5 * lines, height)
        axis.annotate(name, (1.02, height / 107 + 3 / 107), xycoords="axes fraction", color=color, fontsize=7, va="top")
        height -= 4.2 * lines


def _listed(names: Sequence[str]) -> str:
    """Three names a line."""
    return ",\n".join(", ".join(names[at : at + 2]) for at in range(0, len(names), 2))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(write(options.rows, options.folder))


if __name__ == "__main__":
    main()
