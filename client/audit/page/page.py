"""The report of an audit as one file, `index.html`, that needs nothing else and asks nobody."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import jinja2

from toploc.errors import ToplocError
from toploc.foreign import printable
from toploc.page.document import asset, digest, own
from toploc.page.figures import counted

from ..table import HEAD, Table
from .chart import chart_of
from .distributions import Models
from .headline import headline_of
from .shown import MOST_REJECTED, MOST_UNDECIDED, Selection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..entry import Entry
    from ..journal import Draw
    from ..readers import Reader
    from .chart import Chart
    from .distributions import Model

COLUMNS: Final = (*HEAD[:2], *HEAD[4:7], *HEAD[2:4], *HEAD[7:])
"""Of the table, with what decides in front: a phone is as wide as five."""
MOST_REASONS: Final = 50
MOST_VERIFIERS: Final = 50
"""Rows. Stops names that are all others from filling the page."""


class Page:
    """Takes entries, one by one, and the table that has them too.

    What is foreign, and all of an answer is, comes into the page by jinja2's escaping or as JSON that a script shows as
    text. The page's own policy allows no script and no style but its own two, and no connection.
    """

    def __init__(self, evidence: Reader, draw: Draw, table: Table) -> None:
        self._evidence, self._draw, self._table = evidence, draw, table
        self._models = Models()
        self._verifiers: Counter[str] = Counter()
        self._rejected = Selection(MOST_REJECTED, draw.seed)
        self._undecided = Selection(MOST_UNDECIDED, draw.seed)

    def add(self, entry: Entry) -> None:
        self._models.add(entry)
        if entry.verifier is not None:
            self._verifiers[entry.verifier] += 1
        if entry.report.verdict == "rejected":
            self._rejected.add(entry, self._evidence)
        elif entry.report.verdict == "undecided":
            self._undecided.add(entry, self._evidence)

    def write(self, path: Path) -> None:
        """Raises ToplocError."""
        try:
            path.write_text(self.html(), "utf-8", "backslashreplace")
        except OSError as error:
            raise ToplocError(f"{path}: {error.strerror}") from None

    def html(self) -> str:
        style, script = (own(f"parts.{kind}") + asset(__package__, f"report.{kind}") for kind in ("css", "js"))
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["printable"] = printable
        environment.filters["digest"] = digest
        environment.filters["counted"] = counted
        template = environment.from_string(asset(__package__, "report.html"))
        rows, reasons = self._table.rows(), self._table.reasons.most_common(MOST_REASONS)
        shown = sorted([*self._rejected, *self._undecided], key=lambda answer: answer.rank)
        return template.render(
            style=style,
            script=script,
            now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            evidence=self._evidence.path.name,
            draw=self._draw,
            table=self._table,
            headline=headline_of(self._table),
            columns=COLUMNS,
            rows=[(row, dict(zip(HEAD, row.cells(), strict=True))) for row in rows],
            total=dict(zip(HEAD, self._table.total.cells(), strict=True)) if len(rows) > 1 else None,
            reasons=sorted(reasons, key=lambda reason: reason[0][0] != "rejected"),
            more_reasons=len(self._table.reasons) - MOST_REASONS,
            verifiers=self._verifiers.most_common(MOST_VERIFIERS),
            models=[*self._charts()],
            selections=[("rejected", self._rejected), ("undecided", self._undecided)],
            worst=next(iter(shown), None),
            shown=[answer.model_dump(mode="json", exclude_none=True) for answer in shown],
        )

    def _charts(self) -> Iterator[tuple[Model, list[Chart]]]:
        """Of models that have a chunk with figures."""
        for model in self._models:
            if charts := [chart_of(distribution) for distribution in model.distributions if distribution.chunks]:
                yield model, charts
