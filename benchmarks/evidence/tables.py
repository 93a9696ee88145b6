"""The tables and plots of a study, from its rows.

    python benchmarks/evidence/tables.py rows.jsonl FOLDER

Writes evidence.md, detection.png and detection.svg into FOLDER.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from records import Records, Row, write_by_command
from separation import (
    JointLikelihood,
    Sample,
    area,
    beyond_paper,
    chunks_needed,
    log_mean,
)

from toploc.calibration.bounds import FIGURES, bounds_from
from toploc.calibration.pooled import (
    AUDITS,
    FALSE_ALARM,
    MOST_AUDITS,
    SHARES,
    audits_to_alarm,
    deviations,
    log_ratios,
    spread_and_bound,
)
from toploc.calibration.rate import Rate
from toploc.calibration.tables import audits_cells
from toploc.pooling.alarm import threshold
from toploc.pooling.spread import Alternative, Spread, chunk_scores
from toploc.scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

HEAD = (
    "| answers | verifier | mismatches | mantissa mean | median | chunks beyond the paper's bounds | answers |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)
POWER = (
    "| answers | verifier | AUC: figures, a chunk / an answer | mean error | likelihood | "
    "chunks to 1 %: figures | mean error | likelihood |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def by_model(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.name == row.prover:  # long ones are for lengths.py
            found[row.model].append(row)
    return found


def figures_line(row: Row) -> str:
    sample = Sample.of([row.chunks])
    ranges = [
        f"{values.min():.3g} to {'none equal' if values.max() >= 1e3 else format(values.max(), '.3g')}"
        for values in (sample["mismatches"], sample["mantissa_mean"], sample["mantissa_median"])
    ]
    failed = sample.failed
    counts = [Rate.of(int(f.sum()), int(f.size)) for f in (failed, failed.any(axis=1))]
    return f"| {row.prover} | {row.verifier} | {' | '.join(ranges)} | {counts[0]} | {counts[1]} |"


def honest_by_verifier(rows: list[Row]) -> dict[str, Sample]:
    """All honest chunks that a verifier judged."""
    found: dict[str, list[list[list[list[float]]]]] = defaultdict(list)
    for row in rows:
        if row.kind == "honest":
            found[row.verifier].append(row.chunks)
    return {verifier: Sample.of(chunks) for verifier, chunks in found.items()}


def power_line(row: Row, honest: Sample) -> str:
    altered = Sample.of([row.chunks])
    pairs = [
        (beyond_paper(honest), beyond_paper(altered), np.max),
        (log_mean(honest), log_mean(altered), np.mean),
    ]
    kept = honest.classes.shape[-1] > 0
    if kept and min(len(honest.figures), len(altered.figures)) >= LEAST:
        # Fitted to one half of each, measured on the other.
        joint = JointLikelihood.fit(honest.half(0), altered.half(0))
        pairs.append((joint(honest.half(1)), joint(altered.half(1)), np.mean))
    areas = [f"{area(h, a):.3f} / {area(pool(h, axis=1), pool(a, axis=1)):.3f}" for h, a, pool in pairs]
    needed = [shown(chunks_needed(h, a)) for h, a, _ in pairs]
    for column in (areas, needed):
        column += ["too few answers" if kept else "not kept"] * (3 - len(column))
    return f"| {row.prover} | {row.verifier} | {' | '.join(areas)} | {' | '.join(needed)} |"


LEAST = 8
"""Answers of which either half has four."""

EIGHT_BITS = ("int8 weights", "weights rounded to fp8", "fp8 weights and activations", "fp8 KV cache")
AUDITS_HEAD = (
    "| traffic served with | threshold | "
    + " | ".join(f"{share:.0%} of it" for share in SHARES)
    + " |\n| --- | --- |"
    + " --- |" * len(SHARES)
)


def audits_line(row: Row, honest: Sample) -> str:
    """Audited answers until the sequential test's alarm: the median, and what 95 % of providers do not exceed."""
    samples = honest, Sample.of([row.chunks])
    # Fitted to one half of each, simulated with the other.
    fitted, others = (
        [[chunk_scores(answer) for answer in sample.half(which)["mantissa_mean"]] for sample in samples]
        for which in (0, 1)
    )
    test = Alternative(*(Spread.fit(part) for part in fitted))
    fair, altered = (log_ratios(part, test) for part in others)
    limit = threshold(fair, answers=AUDITS, false_alarm=FALSE_ALARM)
    cells = audits_cells(audits_to_alarm(fair, altered, limit))
    return f"| {row.prover} | {limit:.2f} | {' | '.join(cells)} |"


CALIBRATED = (
    "| answers | verifier | chunks beyond bounds on chunks | answers | answers beyond the bound on an answer |\n"
    "| --- | --- | --- | --- | --- |"
)
CHUNK_ALARM, ANSWER_ALARM, CONFIDENCE = 1e-4, 1e-3, 0.95
LEAST_FITTED = 100
"""Honest answers from which on bounds are taken, half of them to take them from: of fewer a tail says little."""


class Calibrated:
    """Bounds as `toploc calibrate` takes them, from one half of a verifier's honest answers."""

    def __init__(self, honest: Sample) -> None:
        fitted = honest.half(0)
        count, chunks = fitted["mantissa_mean"].shape
        figures = {name: fitted[name].ravel() for name in FIGURES}
        self.bounds = bounds_from(
            CHUNK_SIZE, figures, np.repeat(np.arange(count), chunks), target=CHUNK_ALARM, confidence=CONFIDENCE
        )
        answers = [chunk_scores(answer) for answer in fitted["mantissa_mean"]]
        self.spread, self.bound = spread_and_bound(answers, target=ANSWER_ALARM, confidence=CONFIDENCE)

    def line(self, prover: str, verifier: str, sample: Sample) -> str:
        chunks = np.logical_or.reduce([sample[name] > getattr(self.bounds, name) for name in FIGURES])
        answers = chunks.any(axis=1)
        scores = [chunk_scores(answer) for answer in sample["mantissa_mean"]]
        beyond = deviations(scores, self.spread) > self.bound
        rates = [Rate.of(int(found.sum()), found.size) for found in (chunks, answers, beyond)]
        return f"| {prover} | {verifier} | {' | '.join(map(str, rates))} |"


def calibrated_table(rows: list[Row], honest: dict[str, Sample]) -> str:
    lines, said = [], []
    for verifier, sample in honest.items():
        if len(sample.figures) < LEAST_FITTED:
            continue
        found = Calibrated(sample)
        of = found.bounds
        said.append(
            f"{verifier}: {of.mismatches} mismatches, mantissa mean {of.mantissa_mean:g}, median "
            f"{of.mantissa_median:g}; an answer {found.bound:.2f} standard deviations above "
            f"{np.exp(found.spread.mean):.3g}, from {len(sample.half(0).figures)} answers"
        )
        lines.append(found.line("honest, held out", verifier, sample.half(1)))
        lines += [
            found.line(row.prover, verifier, Sample.of([row.chunks]))
            for row in rows
            if row.kind == "altered" and row.verifier == verifier
        ]
    if not lines:
        return ""
    head = (
        f"By bounds from one half of the honest answers, at most {CHUNK_ALARM:g} false alarms a chunk and "
        f"{ANSWER_ALARM:g} an answer ({CONFIDENCE:.0%} confidence). {'. '.join(said)}.\n"
    )
    return "\n".join([head, CALIBRATED, *lines]) + "\n"


def shown(count: int | None) -> str:
    return "more than 4,096" if count is None else f"{count:,}"


def markdown(rows: list[Row]) -> str:
    parts = []
    for model, of_model in by_model(rows).items():
        honest = honest_by_verifier(of_model)
        parts.append(f"### {model}\n")
        for kind in ("honest", "altered"):
            lines = [figures_line(row) for row in of_model if row.kind == kind]
            if lines:
                parts.append("\n".join([f"{kind.capitalize()} answers.\n", HEAD, *lines]) + "\n")
        parts += [table] if (table := calibrated_table(of_model, honest)) else []
        lines = [
            power_line(row, honest[row.verifier])
            for row in of_model
            if row.kind == "altered" and row.verifier in honest and len(row.chunks) >= 2
        ]
        if lines:
            parts.append("\n".join([POWER, *lines]) + "\n")
        first = next((row.verifier for row in of_model), "")
        lines = [
            audits_line(row, honest[first])
            for row in of_model
            if row.prover in EIGHT_BITS and row.verifier == first and first in honest and len(row.chunks) >= LEAST
        ]
        if lines:
            head = (
                f"Audited answers until an alarm, median / 95 % (verifier {first}; at most {FALSE_ALARM:.0%} of honest "
                f"providers in {AUDITS:,} audits; more: than {MOST_AUDITS:,}).\n"
            )
            parts.append("\n".join([head, AUDITS_HEAD, *lines]) + "\n")
    return "\n".join(parts)


def plot(rows: list[Row], folder: Path) -> None:
    """Each row's mean mantissa error of a chunk: the middle 98 %, and its median."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = {
        model: [row for row in found if row.verifier.startswith("transformers") and "ranks" not in row.verifier]
        for model, found in by_model(rows).items()
    }
    models = {model: found for model, found in models.items() if found}
    if not models:
        return
    height = 0.6 + 0.22 * max(len(found) for found in models.values())
    figure, axes = plt.subplots(1, len(models), figsize=(6.5 * len(models), height), squeeze=False)
    for axis, (model, found) in zip(axes[0], models.items(), strict=True):
        for place, row in enumerate(found):
            values = np.clip(Sample.of([row.chunks])["mantissa_mean"].ravel(), 0.02, 64.0)
            low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
            color = "tab:blue" if row.kind == "honest" else "tab:red"
            axis.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
            axis.plot([middle], [place], "|", color="black")
        axis.axvline(10, color="gray", linestyle=":", label="the paper's bound")
        axis.set(xscale="log", xlabel="mean mantissa error of a chunk", title=model)
        axis.set_yticks(range(len(found)), [f"{row.prover} / {row.verifier[14:]}" for row in found], fontsize=6)
        axis.invert_yaxis()
        axis.legend(fontsize=6)
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(folder / f"detection.{ending}", dpi=110)
    plt.close(figure)


def write(records: Path, folder: Path, sections: Callable[[], str] = lambda: "") -> str:
    """Everything; also returns the text."""
    rows = list(Records(records))
    folder.mkdir(parents=True, exist_ok=True)
    text = sections() + "\n" + markdown(rows)
    (folder / "evidence.md").write_text(text, "utf-8")
    plot(rows, folder)
    return text


def models_table(abouts: dict[str, Path]) -> str:
    """Of trained models, from the about.json that train.py wrote."""
    lines = [
        "| model | parameters | tokens seen | loss | largest channel / median | points in 6 channels | kurtosis |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, path in abouts.items():
        if path.exists():
            about = json.loads(path.read_text("utf-8"))
            made, sizes = about["model"], about["channels"]
            lines.append(
                f"| {name} | {about['parameters'] / 1e6:.1f} M | {made['tokens']:,} | {made['first_loss']} to "
                f"{made['last_loss']} | {' | '.join(str(value) for value in sizes.values())} |"
            )
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


if __name__ == "__main__":
    write_by_command(__doc__, write)
