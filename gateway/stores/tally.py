"""How many answers came to which verdict, and what their audits took, by day."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .database import Database, Session

DAY: Final = 86_400

STEPS: Final = 4
"""Buckets of audit times for each power of two seconds, so that a quantile is right to a tenth."""

UNTIMED: Final = -1000
"""The bucket of answers on which no verifier reported."""

SHORTEST: Final = 0.001
"""Seconds."""

Key = tuple[int, str, str, str, int]
"""Day, upstream, model, verdict, bucket."""


@dataclass
class Cell:
    """Of answers with one key: how many, and what verifiers took and read for them."""

    answers: int = 0
    seconds: float = 0.0
    tokens: int = 0


@dataclass
class Total:
    """Of one model of one upstream. `verdicts` counts answers; `buckets` those that were audited, by their time."""

    verdicts: Counter[str] = field(default_factory=Counter)
    buckets: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    tokens: int = 0

    def quantile(self, share: float) -> float | None:
        """Seconds of the audit below which this share of them are; None where there was none."""
        left = share * self.buckets.total()
        for bucket, count in sorted(self.buckets.items()):
            left -= count
            if left <= 0:
                return float(2 ** (bucket / STEPS))
        return None


class Tally:
    """Counted in memory, and written with `flush`: what a killed process did not write is not in it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: dict[Key, Cell] = {}

    def add(self, upstream: str, model: str, verdict: str, seconds: float | None = None, tokens: int = 0) -> None:
        """`seconds` and `tokens`: what verifiers took and read; None where none reported."""
        bucket = UNTIMED if seconds is None else round(STEPS * math.log2(max(seconds, SHORTEST)))
        cell = self._unwritten.setdefault((int(time.time() // DAY), upstream, model, verdict, bucket), Cell())
        cell.answers += 1
        cell.seconds += seconds or 0.0
        cell.tokens += tokens

    async def flush(self) -> None:
        """Raises StoreUnavailable, and keeps what was not written."""
        if not self._unwritten:
            return
        cells, self._unwritten = self._unwritten, {}
        columns = "day, upstream, model, verdict, bucket, answers, seconds, tokens"
        more = ", ".join(f"{name} = toploc_tally.{name} + excluded.{name}" for name in ("answers", "seconds", "tokens"))
        sql = (
            f"INSERT INTO toploc_tally ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
            f"ON CONFLICT (day, upstream, model, verdict, bucket) DO UPDATE SET {more}"
        )

        def work(session: Session) -> None:
            for key, cell in sorted(cells.items()):  # in one order, so that gateways do not wait for each other
                session.execute(sql, *key, cell.answers, cell.seconds, cell.tokens)

        try:
            await self._database.run(work)
        except BaseException:
            self._take_back(cells.items())
            raise

    async def totals(self, days: float) -> dict[tuple[str, str], Total]:
        """By upstream and model, over these days. Raises StoreUnavailable."""
        columns = "upstream, model, verdict, bucket, SUM(answers), SUM(seconds), SUM(tokens)"
        sql = f"SELECT {columns} FROM toploc_tally WHERE day > ? GROUP BY upstream, model, verdict, bucket"  # noqa: S608
        first = int(time.time() // DAY) - math.ceil(days)
        made = dict[tuple[str, str], Total]()
        for upstream, model, verdict, bucket, answers, seconds, tokens in await self._database.run(
            lambda session: session.rows(sql, first)
        ):
            total = made.setdefault((upstream, model), Total())
            total.verdicts[verdict] += int(answers)
            total.seconds += float(seconds)
            total.tokens += int(tokens)
            if bucket != UNTIMED:
                total.buckets[int(bucket)] += int(answers)
        return made

    async def purge(self, keep_days: float) -> None:
        """Raises StoreUnavailable."""
        first = int(time.time() // DAY) - math.ceil(keep_days)
        await self._database.run(lambda session: session.execute("DELETE FROM toploc_tally WHERE day <= ?", first))

    def _take_back(self, cells: Iterable[tuple[Key, Cell]]) -> None:
        for key, cell in cells:
            kept = self._unwritten.setdefault(key, Cell())
            kept.answers += cell.answers
            kept.seconds += cell.seconds
            kept.tokens += cell.tokens
