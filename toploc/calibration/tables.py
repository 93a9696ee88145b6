"""What `toploc calibrate` prints: Markdown tables of bounds, and of what they find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bounds import FIGURES, group, refused_answers, refused_chunks, span
from .pooled import AUDITS, FALSE_ALARM, MOST_AUDITS, SHARES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..thresholds.bounds import Bounds, Thresholds
    from ..thresholds.pooled import PooledBounds
    from .pooled import Gain
    from .rate import Rate
    from .samples import Sample


def bounds_table(
    fitted: Sequence[Sample], bounds: Sequence[Bounds], tried: Mapping[int, tuple[Rate, Mapping[str, Rate]]]
) -> str:
    """Markdown: bounds by chunk length, what they come from, and what they refuse and accept."""
    kinds = list(next(iter(tried.values()))[1])
    head = ["chunks of", "honest", "mismatches", "mantissa mean", "mantissa median", "refused of others"]
    rows = []
    for entry in bounds:
        alarms, accepted = tried[entry.rows]
        rows.append(
            [
                span(entry.rows),
                f"{sum(group(sample.rows) == entry.rows for sample in fitted):,}",
                f"{entry.mismatches}",
                f"{entry.mantissa_mean:g}",
                f"{entry.mantissa_median:g}",
                str(alarms),
                *(f"{accepted[kind].count:,} of {accepted[kind].total:,}" for kind in kinds),
            ]
        )
    return markdown([*head, *(f"accepted: {kind}" for kind in kinds)], rows)


def writers_table(
    samples: Mapping[str, Sequence[Sample]], thresholds: Thresholds, paper: Thresholds, confidence: float
) -> str:
    """Markdown: ranges of the figures over the longest chunks, and what is refused, by who made the answers."""
    last = thresholds.bounds[-1].rows
    head = ["answers of", *(name.replace("_", " ") for name in FIGURES)]
    head += [f"chunks of {last} refused", "answers refused", "by the paper's bounds"]
    rows = []
    for name, chunks in samples.items():
        whole = [sample for sample in chunks if group(sample.rows) == last]
        verdicts = [sample.judge(sample.proof, thresholds) for sample in whole]
        row = [name]
        for figure in FIGURES:
            values = [getattr(verdict, figure) for verdict in verdicts]
            row.append(f"{min(values):.3g} to {max(values):.3g}" if values else "-")
        row.append(str(refused_chunks(whole, thresholds, confidence)))
        row += [str(refused_answers(chunks, used, confidence)) for used in (thresholds, paper)]
        rows.append(row)
    return markdown(head, rows)


def pooled_table(bounds: PooledBounds, gains: Mapping[str, Gain]) -> str:
    """Markdown: what the bound on an answer refuses, and how soon the test over answers alarms, by who made them."""
    head = ["answers of", f"beyond {bounds.bound:g} standard deviations", "alarm at"]
    head += [f"{share:.0%} of the traffic" for share in SHARES]
    rows = []
    for name, gain in gains.items():
        limit = f"{bounds.copies[name].threshold:.4g}" if name in bounds.copies else "-"
        rows.append([name, str(gain.refused), limit, *(audits_cells(gain.audits) or ["-"] * len(SHARES))])
    return (
        "By the error by channel over an answer's whole chunks, and pooled over answers: audited answers until the "
        f"alarm, median / 95 %, for at most {FALSE_ALARM:.0%} of honest providers in {AUDITS:,} audits; more: than "
        f"{MOST_AUDITS:,}.\n\n{markdown(head, rows)}"
    )


def audits_cells(audits: Sequence[tuple[int, int]]) -> list[str]:
    """Median / 95 % of `Gain.audits`."""
    return [" / ".join("more" if count > MOST_AUDITS else f"{count:,}" for count in pair) for pair in audits]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
