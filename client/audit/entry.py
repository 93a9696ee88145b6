"""What an audit keeps of an answer: where it is, what it claims to be, and its report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict

from toploc.page.chunks import chunks_of
from toploc.page.shown import NAME_LENGTH, reasons_of
from toploc.protocol import FIELD_NAME
from toploc.report import Report, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc.page.chunks import ChunkFigures

UNKNOWN: Final = "unknown"
"""In place of a model or a day that an answer does not say."""


class Entry(BaseModel):
    """One answer of the file, at line `line` from `offset` on (bytes, or rows), whose JSON has this SHA-256.

    `id`, `model`, `created` (seconds since 1970, UTC) and `tokens` are the answer's own word; `verifier` gave the
    report, or nobody did, and the report's one check says why.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: int
    offset: int
    sha256: str
    id: str | None = None
    model: str | None = None
    created: int | None = None
    tokens: int = 0
    verifier: str | None = None
    report: Report

    @property
    def day(self) -> str:
        """In UTC, as in 2026-11-24."""
        try:
            return UNKNOWN if self.created is None else datetime.fromtimestamp(self.created, UTC).date().isoformat()
        except (ValueError, OverflowError, OSError):
            return UNKNOWN

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of the checks that failed, or of those undecided if none did, each once, as `proofs: activations`."""
        return reasons_of(self.report)

    def chunks(self, choice: int | None = None) -> Iterator[ChunkFigures]:
        """Of one choice, or of all."""
        return chunks_of(self.report, choice)


def entry_of(line: int, offset: int, sha256: str, data: bytes, report: Report, verifier: str | None = None) -> Entry:
    """The entry of an answer: whatever its evidence holds."""
    try:
        response = orjson.loads(data)["response"]
        if not isinstance(response, dict):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        response = {}
    return Entry(
        line=line,
        offset=offset,
        sha256=sha256,
        id=_text(response.get("id")) or _text(response.get("request_id")),
        model=_text(response.get("model")) or _text(report.model),
        created=_created(response),
        tokens=_tokens(response.get(FIELD_NAME)),
        verifier=verifier,
        report=report,
    )


def unreported(reason: str, message: str) -> Report:
    """The report on an answer that no verifier reported on."""
    return malformed(reason, message[:500])


def _created(response: dict[str, Any]) -> int | None:
    """A message has no time of its own; its receipt does."""
    seconds = response.get("created") or response.get("created_at")
    if seconds is None:
        try:
            seconds = response[FIELD_NAME]["choices"][0]["receipt"]["statement"]["issued_at"]
        except (LookupError, TypeError):
            return None
    return int(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 2**53 else None


def _tokens(field: object) -> int:
    choices = field.get("choices") if isinstance(field, dict) else None
    listed = [c.get("token_ids") for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
    return sum(len(ids) for ids in listed if isinstance(ids, list))


def _text(value: object) -> str | None:
    return value[:NAME_LENGTH] if isinstance(value, str) and value else None
