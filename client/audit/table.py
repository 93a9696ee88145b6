"""How the answers of an audit fared, by model and day."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import ToplocError
from toploc.foreign import printable
from toploc.page.chunks import FIGURES
from toploc.page.figures import counted, of_bound, ratio

from .alarms import Alarms
from .entry import UNKNOWN
from .surprise import Surprises
from .unproven import Unproven

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .entry import Entry

MOST_ROWS: Final = 200
"""Stops answers whose every model name or day is another from filling the page."""

VERDICTS: Final = ("accepted", "rejected", "undecided")
"""In the order of their columns."""

HEAD: Final = ("model", "day", "responses", "tokens", *VERDICTS, "mismatches", "mean", "median")
"""Of the columns of `Row.cells`."""


class Row:
    """Of one model and day. The worst of a figure is the chunk's that is highest as a share of its bound."""

    def __init__(self, model: str, day: str) -> None:
        self.model, self.day = model, day
        self.tokens = 0
        self.verdicts: Counter[str] = Counter()
        self.worst: list[tuple[float, float] | None] = [None] * len(FIGURES)

    @property
    def responses(self) -> int:
        return self.verdicts.total()

    def add(self, entry: Entry) -> None:
        self.verdicts[entry.report.verdict] += 1
        self.tokens += entry.tokens
        for chunk in entry.chunks():
            self._worsen(chunk.figures)

    def merge(self, other: Row) -> None:
        self.verdicts += other.verdicts
        self.tokens += other.tokens
        self._worsen(other.worst)

    def _worsen(self, figures: Iterable[tuple[float, float] | None]) -> None:
        for place, pair in enumerate(figures):
            worst = self.worst[place]
            if pair is not None and (worst is None or ratio(pair) > ratio(worst)):
                self.worst[place] = pair

    def cells(self) -> list[str]:
        """In the order of `HEAD`."""
        counts = [self.responses, self.tokens, *(self.verdicts[verdict] for verdict in VERDICTS)]
        return [self.model, self.day, *(f"{count:,}" for count in counts), *(of_bound(pair) for pair in self.worst)]

    def to_json(self) -> dict[str, Any]:
        worst = {
            name: pair and {"figure": pair[0], "bound": pair[1]} for name, pair in zip(FIGURES, self.worst, strict=True)
        }
        counts = {verdict: self.verdicts[verdict] for verdict in VERDICTS}
        return {
            "model": self.model,
            "day": self.day,
            "responses": self.responses,
            "tokens": self.tokens,
            **counts,
            "worst": worst,
        }


class Table:
    """Takes entries, one by one."""

    def __init__(self) -> None:
        self.total = Row("all", "")
        self.reasons: Counter[tuple[str, str]] = Counter()
        """By verdict and reason; an answer may have several."""
        self.alarms = Alarms()
        self.surprises = Surprises()
        self.unproven = Unproven()
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, entry: Entry) -> None:
        key = (entry.model or UNKNOWN, entry.day)
        if key not in self._rows:
            self._rows[key] = Row(*key)
        self._rows[key].add(entry)
        self.total.add(entry)
        self.alarms.add(entry)
        self.surprises.add(entry)
        self.unproven.add(entry)
        if entry.report.verdict != "accepted":
            self.reasons.update((entry.report.verdict, reason) for reason in entry.reasons)

    def rows(self) -> list[Row]:
        """By model and day, at most `MOST_ROWS`: beyond that those with most answers, and the others in one."""
        largest = sorted(self._rows.values(), key=lambda row: -row.responses)
        kept = sorted(largest[:MOST_ROWS], key=lambda row: (row.model, row.day))
        if others := largest[MOST_ROWS:]:
            rest = Row(f"{len(others):,} others", "")
            for row in others:
                rest.merge(row)
            kept.append(rest)
        return kept

    def __str__(self) -> str:
        """The alarms, then rows and total, then the tests that raised none."""
        rows = [list(HEAD), *(row.cells() for row in [*self.rows(), self.total])]
        lines = [[printable(cell) for cell in row] for row in rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
        aligned = [
            "  ".join(
                f"{cell:<{w}}" if place < 2 else f"{cell:>{w}}"
                for place, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        raised = [f"{one.kind} pooled over answers: {one}" for one in self.surprises if one.test.raised]
        raised += [f"pooled over answers: {alarm}" for alarm in self.alarms if alarm.raised]
        quiet = [*self.unproven.lines()]
        quiet += [f"{one.kind} pooled over answers: {one}" for one in self.surprises if not one.test.raised]
        quiet += [f"pooled over answers: {alarm}" for alarm in self.alarms if not alarm.raised]
        if self.alarms.not_comparable:
            of = counted(self.alarms.not_comparable, "answer")
            quiet.append(f"not comparable: {of} by an engine, in its own words, that no pooled bounds are for")
        return "\n".join([*raised, *aligned, *quiet])

    def write(self, path: Path) -> None:
        """As JSON. Raises ToplocError."""
        try:
            path.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise ToplocError(f"{path}: {error.strerror}") from None

    def to_json(self) -> dict[str, Any]:
        reasons = [{"verdict": v, "reason": r, "answers": count} for (v, r), count in self.reasons.most_common()]
        unproven = {"without_proofs": self.unproven.to_json()} if self.unproven.answers else {}
        return {
            "total": self.total.to_json(),
            **unproven,
            "rows": [row.to_json() for row in self.rows()],
            "reasons": reasons,
            "alarms": [alarm.to_json() for alarm in self.alarms],
            "not_comparable": self.alarms.not_comparable,
            "surprises": [one.to_json() for one in self.surprises],
        }
