"""Answers that the page shows one by one: all that were not accepted, or as many of them as a page can hold."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from pydantic import Field

from toploc.errors import MalformedEvidence
from toploc.evidence.strict_json import load_json
from toploc.page.figures import ratio
from toploc.page.shown import Room, shown_of, worst_of
from toploc.page.shown import Shown as Answer

from ...share import lot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..entry import Entry
    from ..readers import Reader

MOST_REJECTED: Final = 1000
MOST_UNDECIDED: Final = 200
"""Answers. Stops a bad provider from making a page that no browser opens."""

ROOM: Final = Room(choices=16, chunks=128, text=40_000, request=2000, message=1000, details=0, whole=False)
"""Of each."""


class Shown(Answer):
    """`rank` sorts the worst answers to the front: rejected before undecided, larger shares before smaller."""

    line: int
    day: str
    verifier: str | None
    rank: tuple[bool, float, int] = Field(exclude=True)


class Selection:
    """At most `most` of the answers that are added: those with the least SHA-256 over seed and line, which is chance.

    So the same audit shows the same, and what a server sends does not decide whether it is shown.
    """

    def __init__(self, most: int, seed: str) -> None:
        self.count = 0
        self._most, self._seed = most, seed
        self._kept: list[tuple[int, int, Shown]] = []

    def add(self, entry: Entry, evidence: Reader) -> None:
        self.count += 1
        draw = -lot(f"page:{self._seed}", f"{entry.line}")
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, (draw, entry.line, read_again(entry, evidence)))
        elif draw > self._kept[0][0]:
            heapq.heapreplace(self._kept, (draw, entry.line, read_again(entry, evidence)))

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Shown]:
        """In the file's order."""
        return (shown for _, _, shown in sorted(self._kept, key=lambda kept: kept[1]))


def read_again(entry: Entry, evidence: Reader) -> Shown:
    """With the answer's line read again for its text."""
    line = next(evidence.lines(entry.offset, entry.line), None)
    try:
        item = load_json(line.data if line is not None and line.data is not None else b"")
    except MalformedEvidence:
        item = None
    _, pair = worst_of(entry.report)
    known = {**shown_of(entry.report, item, ROOM).__dict__, "id": entry.id, "model": entry.model}
    return Shown(
        **{**known, "tokens": entry.tokens},
        line=entry.line,
        day=entry.day,
        verifier=entry.verifier,
        rank=(entry.report.verdict != "rejected", -ratio(pair) if pair else 0.0, entry.line),
    )
