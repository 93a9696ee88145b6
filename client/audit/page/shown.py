"""Answers that the page shows one by one: all that were not accepted, or as many of them as a page can hold."""

from __future__ import annotations

import heapq
import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from toploc.errors import MalformedEvidence
from toploc.evidence.parse import read_evidence
from toploc.evidence.strict_json import load_json

from ...share import lot
from ..entry import FIGURES
from ..figures import of_bound, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc.evidence.evidence import Answer
    from toploc.report import Check

    from ..entry import ChunkFigures, Entry
    from ..readers import Reader

MOST_REJECTED: Final = 1000
MOST_UNDECIDED: Final = 200
"""Answers. Stops a bad provider from making a page that no browser opens."""
MOST_CHOICES: Final = 16
"""Of one answer."""
MOST_CHUNKS: Final = 128
"""Of one choice: 4,096 tokens."""
MOST_TEXT: Final = 40_000
"""Characters of one choice. Stops 4,096 tokens that are all long from filling the page."""
MOST_REQUEST: Final = 2000
"""Characters of the request, as JSON."""
MOST_MESSAGE: Final = 1000
"""Characters of a check's message."""


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class ShownChunk(_Shown):
    """`figures` as in `FIGURES`, then decoys, each with its bound; `text` None where it cannot be told apart."""

    passed: bool
    figures: tuple[tuple[float, float] | None, ...]
    text: str | None = None


class ShownChoice(_Shown):
    """`text` is the whole, where it cannot be cut into chunks; `chunks` and `failed` count all, shown or not."""

    index: int
    tokens: int
    chunks: int
    failed: int
    shown: tuple[ShownChunk, ...]
    text: str | None = None
    cut: bool = False


class ShownCheck(_Shown):
    name: str
    status: str
    choice: int | None
    reason: str | None
    message: str


class Shown(_Shown):
    """An answer as the page has it.

    `worst` is the figure of a chunk that is the largest share of its bound, with it, as in `mismatches 36 of 12`.
    `rank` sorts the worst answers to the front: rejected before undecided, larger shares before smaller.
    """

    line: int
    id: str | None
    model: str | None
    day: str
    tokens: int
    verdict: str
    verifier: str | None
    reasons: tuple[str, ...]
    checks: tuple[ShownCheck, ...]
    choices: tuple[ShownChoice, ...]
    request: str | None
    worst: str | None
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
            heapq.heappush(self._kept, (draw, entry.line, shown_of(entry, evidence)))
        elif draw > self._kept[0][0]:
            heapq.heapreplace(self._kept, (draw, entry.line, shown_of(entry, evidence)))

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Shown]:
        """In the file's order."""
        return (shown for _, _, shown in sorted(self._kept, key=lambda kept: kept[1]))


def shown_of(entry: Entry, evidence: Reader) -> Shown:
    """Reads the answer's line again for its text."""
    line = next(evidence.lines(entry.offset, entry.line), None)
    data = line.data if line is not None and line.data is not None else b""
    answers: tuple[Answer, ...] = ()
    request = None
    try:
        parsed = load_json(data)
        answers = read_evidence(parsed).answers
        request = _request(parsed)
    except MalformedEvidence:
        pass
    name, pair = _worst(entry)
    return Shown(
        line=entry.line,
        id=entry.id,
        model=entry.model,
        day=entry.day,
        tokens=entry.tokens,
        verdict=entry.report.verdict,
        verifier=entry.verifier,
        reasons=entry.reasons,
        checks=tuple(_check(check) for check in entry.report.checks[: 8 * MOST_CHOICES]),
        choices=tuple(_choice(entry, answer) for answer in answers[:MOST_CHOICES]),
        request=request,
        worst=f"{name} {of_bound(pair)}" if pair else None,
        rank=(entry.report.verdict != "rejected", -ratio(pair) if pair else 0.0, entry.line),
    )


def _worst(entry: Entry) -> tuple[str, tuple[float, float] | None]:
    """The name of the worst figure, and it with its bound; None where no chunk has any."""
    names = (*(name.replace("_", " ") for name in FIGURES), "decoy hits")
    listed = [pair for chunk in entry.chunks() for pair in zip(names, _figures(chunk), strict=True)]
    return max(listed, key=lambda named: ratio(named[1]) if named[1] else -1.0, default=("", None))


def _figures(chunk: ChunkFigures) -> tuple[tuple[float, float] | None, ...]:
    return (*chunk.figures, _decoys(chunk.raw))


def _choice(entry: Entry, answer: Answer) -> ShownChoice:
    chunks = list(entry.chunks(answer.index))
    text = answer.text or ""
    offsets = _offsets(entry, answer, len(chunks))
    parts = []
    for place, chunk in enumerate(chunks[:MOST_CHUNKS]):
        part = None
        if offsets is not None and offsets[place] < MOST_TEXT:
            part = text[offsets[place] : min(offsets[place + 1], MOST_TEXT)]
        parts.append(ShownChunk(passed=chunk.passed, figures=_figures(chunk), text=part))
    return ShownChoice(
        index=answer.index,
        tokens=len(answer.token_ids),
        chunks=len(chunks),
        failed=sum(not chunk.passed for chunk in chunks),
        shown=tuple(parts),
        text=text[:MOST_TEXT] if offsets is None else None,
        cut=len(chunks) > MOST_CHUNKS or len(text) > MOST_TEXT,
    )


def _offsets(entry: Entry, answer: Answer, chunks: int) -> list[int] | None:
    """Where chunks are in the text; None where the text is not what the tokens say, or was taken apart."""
    for check in entry.report.checks:
        if check.status == "passed" and (check.name, check.choice) in (("text", answer.index), ("response", None)):
            given = check.figures.get("chunk_offsets")
            if isinstance(given, dict):  # of a rehearsal, which is one of all choices
                given = given.get(str(answer.index))
            if isinstance(given, list) and len(given) == chunks + 1 > 1:
                offsets = [place for place in given if isinstance(place, int) and place >= 0]
                if len(offsets) == len(given) and offsets == sorted(offsets):
                    return offsets
    return None


def _decoys(raw: dict[str, Any]) -> tuple[float, float] | None:
    hits, bounds = raw.get("decoy_hits"), raw.get("bounds")
    bound = bounds.get("decoy_hits") if isinstance(bounds, dict) else None
    return (float(hits), float(bound)) if isinstance(hits, int | float) and isinstance(bound, int | float) else None


def _check(check: Check) -> ShownCheck:
    message = check.message if len(check.message) <= MOST_MESSAGE else f"{check.message[: MOST_MESSAGE - 1]}…"
    return ShownCheck(name=check.name, status=check.status, choice=check.choice, reason=check.reason, message=message)


def _request(evidence: Any) -> str:
    text = json.dumps(evidence["request"], ensure_ascii=False, indent=1)
    return text if len(text) <= MOST_REQUEST else f"{text[: MOST_REQUEST - 1]}…"
