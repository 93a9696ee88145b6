"""The comparison as Markdown and as JSON."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .comparison import Row

HEAD: Final = (
    *("vendor", "verdict", "answered", "tokens said", "prompts", "tool calls", "valid", "F1", "streams", "text"),
    *("own choice", "dollars"),
)
"""Of the columns of `cells`."""

MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")
"""What Markdown reads."""


def cells(row: Row) -> list[str]:
    """In the order of `HEAD`; a dash for what is not known."""
    greedy = row.tokens.get("greedy") or {}
    looked = row.verdicts.total()
    text = f"{row.verdicts['weak']:,} of {looked:,}, {row.verdicts['rejected']:,} rejected" if looked else "-"
    return [
        row.vendor,
        row.verdict,
        f"{row.answered:,} of {row.asked:,}",
        "-" if row.over is None else f"{row.over:+.1%}",
        f"{row.prompts_right:,} of {row.prompts:,}" if row.prompts else "-",
        f"{row.called:,} of {row.asked_with_tools:,}" if row.asked_with_tools else "-",
        f"{row.valid:,} of {row.calls:,}" if row.calls else "-",
        "-" if row.f1 is None else f"{row.f1:.2f}",
        f"{row.equal:,} of {row.streams:,}" if row.streams else "-",
        text + (", alarm" if row.alarms else ""),
        f"{greedy['matched'] / greedy['tokens']:.1%}" if greedy.get("tokens") else "-",
        "-" if row.dollars is None else f"{row.dollars:.4f}",
    ]


def markdown(rows: Sequence[Row], *, made: str) -> str:
    """A table, and below it what was found of each vendor."""
    lines = [f"# Vendors, {made}", "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    lines += [f"| {' | '.join(map(_plain, cells(row)))} |" for row in rows]
    for row in rows:
        lines += ["", f"## {_plain(row.vendor)}: {row.verdict}", ""]
        lines += [f"- {_plain(line)}" for line in row.found]
        lines += [f"- perhaps: {_plain(line)}" for line in row.unsure]
        lines += [f"- for example {_plain(': '.join(one))}" for one in row.examples[:5]]
        if not (row.found or row.unsure):
            lines.append("- nothing")
    return "\n".join([*lines, ""])


def to_json(rows: Sequence[Row], *, made: str, seed: str) -> dict[str, Any]:
    """With everything that the columns are made of."""
    listed = []
    for row in rows:
        examples = [dict(zip(("key", "check", "reason", "message"), one, strict=True)) for one in row.examples]
        known = {one.name: getattr(row, one.name) for one in fields(row)}
        listed.append({**known, "verdict": row.verdict, "over": row.over, "examples": examples})
    return {"version": 1, "made": made, "seed": seed, "vendors": listed}


def _plain(text: str) -> str:
    return MARKUP.sub(r"\\\1", printable(text))
