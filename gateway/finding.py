"""What is known so far of one reply."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .stores.answers import PENDING, Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toploc_client.exchange import Exchange
    from toploc_client.judgement import Judgement

    from toploc.report import Check

ORDER: Final = ("accepted", "weak", "unchecked", PENDING, "unavailable", "undecided", "missing", "rejected")
"""Verdicts, the worst last: what came after a stream's end may make its verdict worse, never better. `weak` is of an
answer without proofs whose text shows nothing."""


@dataclass(eq=False)
class Finding:
    """`verdict` is None before anything is known."""

    upstream: str
    model: str
    route: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    made_at: float = field(default_factory=time.time)
    verdict: str | None = None
    reason: str | None = None
    report: Judgement | None = None
    seconds: float | None = None
    """What its verifiers took; None where none reported."""
    tokens: int = 0
    """What they read: of prompt and choices, each time."""
    drawn: bool = True
    """Whether verifiers are to be asked."""
    told: bool = False
    """Whether it was counted, or will be."""
    stored: bool = False
    unstored: str = ""
    """Why it could not be written down."""

    def worsen(self, verdict: str, reason: str | None = None, report: Judgement | None = None) -> None:
        if self.verdict is None or ORDER.index(verdict) >= ORDER.index(self.verdict) or self.verdict == PENDING:
            self.verdict, self.reason, self.report = verdict, reason, report

    def answer(self, exchange: Exchange, own: Sequence[Check] = ()) -> Answer:
        name = exchange.parsed().get("id")
        known = plain(name) if isinstance(name, str) else None
        return Answer(
            *(self.id, self.made_at, self.upstream, self.model, self.route, known),
            *(self.verdict or "unchecked", self.reason, tuple(own), self.report, exchange),
        )


def plain(text: str) -> str:
    """As databases and headers may have it: ASCII, on one line, not long."""
    return ascii(text[:200])[1:-1]
