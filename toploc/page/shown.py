"""An answer as pages show it: its text by chunks, its checks, its receipts."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from ..errors import MalformedEvidence
from ..evidence.parse import read_evidence
from .chunks import chunks_of
from .figures import of_bound, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..evidence.evidence import Answer
    from ..report import Check, Report
    from .chunks import Pair

NAMES: Final = ("mismatches", "mantissa mean", "mantissa median", "decoy hits")
"""Of a chunk's figures, in their order."""

NAME_LENGTH: Final = 100
"""Characters of a name. Stops one that fills the page."""

CHECKS: Final = 8
"""Of one choice."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is shown of one answer at most. Stops a bad provider from making a page that no browser opens.

    `chunks` and `text`, in characters, are of one choice; `request`, which bounds a response too, and `message` in
    characters; `details` lines of a check. `whole`: with receipts, and with a response whose choices cannot be read.
    """

    choices: int = 64
    chunks: int = 4096
    text: int = 1_000_000
    request: int = 400_000
    message: int = 4000
    details: int = 50
    whole: bool = True


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class ShownChunk(_Shown):
    """`figures` as in `NAMES`, each with its bound; `text` None where it cannot be told apart."""

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
    receipt: dict[str, Any] | None = None


class ShownCheck(_Shown):
    name: str
    status: str
    choice: int | None
    reason: str | None
    message: str
    details: tuple[str, ...] = ()


class Shown(_Shown):
    """`worst` is the figure of a chunk that is the largest share of its bound, with it, as in `mismatches 36 of 12`.
    `response` is JSON, of one whose choices cannot be read."""

    id: str | None
    model: str | None
    tokens: int
    verdict: str
    reasons: tuple[str, ...]
    checks: tuple[ShownCheck, ...]
    choices: tuple[ShownChoice, ...]
    request: str | None
    worst: str | None
    response: str | None = None


def shown_of(report: Report, item: object, room: Room, answers: tuple[Answer, ...] | None = None) -> Shown:
    """`item`: the evidence in JSON as it was parsed, whatever it is; `answers` its choices, where they were read."""
    if answers is None:
        answers = ()
        with suppress(MalformedEvidence):
            answers = read_evidence(item).answers
    response = item.get("response") if isinstance(item, dict) else None
    name, pair = worst_of(report)
    return Shown(
        id=_text(response, "id") or _text(response, "request_id"),
        model=_text(response, "model") or (report.model or "")[:NAME_LENGTH] or None,
        tokens=sum(len(answer.token_ids) for answer in answers),
        verdict=report.verdict,
        reasons=reasons_of(report),
        checks=checks_of(report, room),
        choices=tuple(_choice(report, answer, room) for answer in answers[: room.choices]),
        request=_part(item, "request", room.request),
        worst=f"{name} {of_bound(pair)}" if pair else None,
        response=_part(item, "response", room.request) if room.whole and not answers else None,
    )


def figures_of(report: Report, tokens: Mapping[int, int]) -> Shown:
    """What those may see who may not read the answer: verdict, stable reasons and figures, and no word of request,
    response or messages. `tokens`: how many each choice has."""
    choices = []
    for index, count in tokens.items():
        chunks = list(chunks_of(report, index))
        shown = tuple(ShownChunk(passed=chunk.passed, figures=chunk.with_decoys) for chunk in chunks)
        failed = sum(not chunk.passed for chunk in chunks)
        choices.append(ShownChoice(index=index, tokens=count, chunks=len(chunks), failed=failed, shown=shown))
    name, pair = worst_of(report)
    return Shown(
        id=None,
        model=None,
        tokens=sum(tokens.values()),
        verdict=report.verdict,
        reasons=reasons_of(report),
        checks=tuple(
            ShownCheck(name=check.name, status=check.status, choice=check.choice, reason=check.reason, message="")
            for check in report.checks
        ),
        choices=tuple(choices),
        request=None,
        worst=f"{name} {of_bound(pair)}" if pair else None,
    )


def reasons_of(report: Report) -> tuple[str, ...]:
    """Of the checks that failed, or of those undecided if none did, each once, as `proofs: activations`."""
    for status in ("failed", "undecided", "skipped"):
        reasons = [f"{c.name}: {c.reason}"[:NAME_LENGTH] for c in report.checks if c.status == status and c.reason]
        if reasons:
            return tuple(dict.fromkeys(reasons))
    return ()


def worst_of(report: Report) -> tuple[str, Pair | None]:
    """The name of the worst figure, and it with its bound; None where no chunk has any."""
    listed = [pair for chunk in chunks_of(report) for pair in zip(NAMES, chunk.with_decoys, strict=True)]
    return max(listed, key=lambda named: ratio(named[1]) if named[1] else -1.0, default=("", None))


def checks_of(report: Report, room: Room) -> tuple[ShownCheck, ...]:
    return tuple(_check(check, room) for check in report.checks[: CHECKS * room.choices])


def _choice(report: Report, answer: Answer, room: Room) -> ShownChoice:
    chunks = list(chunks_of(report, answer.index))
    text = answer.text or ""
    offsets = _offsets(report, answer, len(chunks))
    parts = []
    for place, chunk in enumerate(chunks[: room.chunks]):
        part = None
        if offsets is not None and offsets[place] < room.text:
            part = text[offsets[place] : min(offsets[place + 1], room.text)]
        parts.append(ShownChunk(passed=chunk.passed, figures=chunk.with_decoys, text=part))
    receipt = answer.proofs.receipt if room.whole else None
    return ShownChoice(
        index=answer.index,
        tokens=len(answer.token_ids),
        chunks=len(chunks),
        failed=sum(not chunk.passed for chunk in chunks),
        shown=tuple(parts),
        text=text[: room.text] if offsets is None else None,
        cut=len(chunks) > room.chunks or len(text) > room.text,
        receipt=receipt.model_dump(mode="json", exclude_none=True) if receipt is not None else None,
    )


def _offsets(report: Report, answer: Answer, chunks: int) -> list[int] | None:
    """Where chunks are in the text; None where the text is not what the tokens say, or was taken apart."""
    for check in report.checks:
        if check.status == "passed" and (check.name, check.choice) in (("text", answer.index), ("response", None)):
            given = check.figures.get("chunk_offsets")
            if isinstance(given, dict):  # of a rehearsal, which is one of all choices
                given = given.get(str(answer.index))
            if isinstance(given, list) and len(given) == chunks + 1 > 1:
                offsets = [place for place in given if isinstance(place, int) and place >= 0]
                if len(offsets) == len(given) and offsets == sorted(offsets):
                    return offsets
    return None


def _check(check: Check, room: Room) -> ShownCheck:
    return ShownCheck(
        name=check.name,
        status=check.status,
        choice=check.choice,
        reason=check.reason,
        message=_cut(check.message, room.message),
        details=tuple(_cut(line, room.message) for line in check.details[: room.details]),
    )


def _part(item: object, name: str, most: int) -> str | None:
    if not isinstance(item, dict) or name not in item:
        return None
    return _cut(json.dumps(item[name], ensure_ascii=False, indent=1), most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(value: object, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found[:NAME_LENGTH] if isinstance(found, str) and found else None
