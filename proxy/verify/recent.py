"""Recent verifications, in bounded memory: what the server's page shows, and to whom."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from toploc.page.shown import Room, Shown, figures_of, shown_of
from toploc.recent import Recent

from ..settings import Page

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from toploc.evidence.evidence import Evidence
    from toploc.report import Report

    from ..settings import Settings

COUNT: Final = 500
"""Verifications that are remembered."""

SIZE: Final = 32 * 2**20
"""Bytes of all of them."""

TIMED: Final = 1000
"""The newest verifications whose times make the quantiles."""

OTHER: Final = "other"
"""In place of a model that is not served here. Stops claimed names from filling the page, and from being read there."""

ROOM: Final = Room(choices=16, chunks=1024, text=200_000, request=100_000)


@dataclass(frozen=True, slots=True)
class Verification:
    """`figures` is for everybody who has a key; `whole`, with the report, for the owner, who has the key that asked.
    Both are JSON."""

    id: str
    made_at: float
    model: str
    verdict: str
    reason: str | None
    seconds: float
    tokens: int
    figures: bytes
    whole: bytes | None = None
    owner: bytes = b""

    @property
    def size(self) -> int:
        return len(self.figures) + len(self.whole or b"")

    def listed(self) -> dict[str, Any]:
        names = ("id", "made_at", "model", "verdict", "reason", "seconds", "tokens")
        return {name: getattr(self, name) for name in names}


@dataclass
class Total:
    """Of a model, since the server's start."""

    verdicts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    tokens: int = 0
    last: float = 0.0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))

    def quantile(self, share: float) -> float | None:
        ordered = sorted(self.times)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Verifications:
    """Text is kept where the operator has not turned it off, requests need a key, and this one had it."""

    def __init__(self, settings: Settings) -> None:
        self.shown = settings.page is not Page.NONE
        self._keeps_text = settings.page is Page.OWN and settings.keyed
        self._salt = secrets.token_bytes(32)
        self._recent: Recent[Verification] = Recent(count=COUNT, size=SIZE, measure=lambda one: one.size)
        self.totals: dict[str, Total] = {}
        self.malformed = 0
        """Bodies that were no evidence."""

    def read(
        self, item: object, evidence: Evidence, report: Report, names: Collection[str], seconds: float, key: str
    ) -> Verification:
        """What is to be remembered of an item. `names`: of what is served; `key`: the request's `Authorization`. On any
        thread."""
        model = evidence.model if evidence.model in names else OTHER
        tokens = {answer.index: len(answer.token_ids) for answer in evidence.answers[: ROOM.choices]}
        figures = figures_of(report, tokens).model_copy(update={"model": model})
        reason = next(iter(figures.reasons), None)
        owner = self._owner(key) if self._keeps_text else b""
        return Verification(
            *(secrets.token_hex(8), time.time(), model, report.verdict, None if report.accepted else reason, seconds),
            tokens=sum(answer.prompt.num_tokens + len(answer.token_ids) for answer in evidence.answers),
            figures=_json(figures),
            whole=_json(shown_of(report, item, ROOM, evidence.answers), report) if owner else None,
            owner=owner,
        )

    def put(self, made: Verification) -> None:
        self._recent.put(made.id, made)
        total = self.totals.setdefault(made.model, Total())
        total.verdicts[made.verdict] += 1
        total.seconds += made.seconds
        total.tokens += made.tokens
        total.last = made.made_at
        total.times.append(made.seconds)

    def newest(self, count: int) -> Iterator[Verification]:
        return iter(self._recent.newest(count))

    def get(self, name: str, key: str) -> bytes | None:
        """JSON of all that `key` may see, which has the `report` if that is everything; None for what is not
        remembered."""
        found = self._recent.get(name)
        if found is None:
            return None
        if found.whole is not None and found.owner and hmac.compare_digest(found.owner, self._owner(key)):
            return found.whole
        return found.figures

    def _owner(self, key: str) -> bytes:
        """Of a request; nobody where it has no key."""
        scheme, _, token = key.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return b""
        return hmac.digest(self._salt, token.strip().encode(errors="replace"), hashlib.sha256)


def _json(shown: Shown, report: Report | None = None) -> bytes:
    """With the report, where the reader may see it."""
    answer = shown.model_dump_json(exclude_none=True)
    told = f', "report": {report.model_dump_json()}' if report is not None else ""
    return f'{{"answer": {answer}{told}}}'.encode()
