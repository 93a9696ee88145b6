"""What is kept of an upstream: its standing, and the sums of the sequential tests over its answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from toploc.pooling.cusum import Cusum

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .database import Database, Session

POINTS: Final = 500
"""Of a test's sum, the newest, that are kept at least."""

State = Literal["trusted", "quarantined", "probation"]


@dataclass(frozen=True, slots=True)
class Standing:
    """`until` is when a quarantine ends, None for never; `answer` the one that brought it about; `probation` how many
    answers are still to be checked before the upstream is trusted again."""

    upstream: str
    state: State = "trusted"
    since: float = 0.0
    until: float | None = None
    reason: str | None = None
    answer: str | None = None
    probation: int = 0


@dataclass(frozen=True, slots=True)
class Sum:
    """Of one sequential test over a model's answers."""

    upstream: str
    model: str
    test: str
    value: float
    highest: float
    answers: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Point:
    """The sum of a test after its answer of this number, and what raised an alarm then."""

    answers: int
    value: float
    threshold: float


class Standings:
    """Each method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, Standing]:
        sql = "SELECT upstream, state, since, until, reason, answer, probation FROM toploc_standing"
        rows = await self._database.run(lambda session: session.rows(sql))
        return {row[0]: Standing(*row) for row in rows}

    async def begin(self, upstreams: Iterable[str], now: float) -> None:
        """Those of which nothing is known are trusted from now on, or from the oldest answer that is kept."""

        def work(session: Session) -> None:
            [(oldest,)] = session.rows("SELECT MIN(made_at) FROM toploc_answers")
            sql = "INSERT INTO toploc_standing VALUES (?, 'trusted', ?, NULL, NULL, NULL, 0) ON CONFLICT DO NOTHING"
            for upstream in upstreams:
                session.execute(sql, upstream, now if oldest is None else min(now, oldest))

        await self._database.run(work)

    async def put(self, standing: Standing) -> None:
        one = standing
        values = (one.upstream, one.state, one.since, one.until, one.reason, one.answer, one.probation)

        def work(session: Session) -> None:
            session.execute("DELETE FROM toploc_standing WHERE upstream = ?", one.upstream)
            session.execute("INSERT INTO toploc_standing VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

        await self._database.run(work)

    async def passed(self, upstream: str, since: float) -> int:
        """An answer on probation was accepted; how many are left. The last one ends it."""

        def work(session: Session) -> int:
            where = "WHERE upstream = ? AND state = 'probation'"
            session.execute(f"UPDATE toploc_standing SET probation = probation - 1 {where}", upstream)  # noqa: S608
            left = session.rows(f"SELECT probation FROM toploc_standing {where}", upstream)  # noqa: S608
            if left and left[0][0] <= 0:
                sql = "UPDATE toploc_standing SET state = 'trusted', since = ?, until = NULL, probation = 0"
                session.execute(f"{sql} {where}", since, upstream)
            return int(left[0][0]) if left else 0

        return await self._database.run(work)

    async def add(self, upstream: str, model: str, test: str, log_ratio: float, threshold: float, audits: int) -> Sum:
        """The next answer of a test, by its log-likelihood ratio. Over more answers than `audits` its threshold grows
        by the logarithm of their number, as `toploc audit` has it."""
        key = (upstream, model, test)

        def work(session: Session) -> Sum:
            names = "upstream, model, test, value, highest, answers, threshold"
            session.execute(
                f"INSERT INTO toploc_sums ({names}) VALUES (?, ?, ?, 0, 0, 0, ?) ON CONFLICT DO NOTHING",  # noqa: S608
                *(*key, threshold),
            )
            where = "WHERE upstream = ? AND model = ? AND test = ?"
            [found] = session.locked(f"SELECT {names} FROM toploc_sums {where}", *key)  # noqa: S608
            cusum = Cusum(threshold, found[3], found[4], found[5])
            cusum.add(log_ratio)
            grown = threshold + max(0.0, math.log(cusum.answers / audits))
            sql = f"UPDATE toploc_sums SET value = ?, highest = ?, answers = ?, threshold = ? {where}"  # noqa: S608
            session.execute(sql, cusum.value, cusum.highest, cusum.answers, grown, *key)
            point = (cusum.answers, cusum.value, grown)
            session.execute("INSERT INTO toploc_points VALUES (?, ?, ?, ?, ?, ?)", *key, *point)
            if cusum.answers % POINTS == 0:
                sql = f"DELETE FROM toploc_points {where} AND answers <= ?"  # noqa: S608
                session.execute(sql, *key, cusum.answers - POINTS)
            return Sum(*key, cusum.value, cusum.highest, cusum.answers, grown)

        return await self._database.run(work)

    async def sums(self) -> list[Sum]:
        sql = "SELECT upstream, model, test, value, highest, answers, threshold FROM toploc_sums"
        return [Sum(*row) for row in await self._database.run(lambda session: session.rows(sql))]

    async def points(self) -> dict[tuple[str, str, str], list[Point]]:
        """The newest sums of each test, by upstream, model and test."""
        sql = "SELECT upstream, model, test, answers, value, threshold FROM toploc_points ORDER BY answers"
        made = dict[tuple[str, str, str], list[Point]]()
        for upstream, model, test, *point in await self._database.run(lambda session: session.rows(sql)):
            made.setdefault((upstream, model, test), []).append(Point(*point))
        return {key: points[-POINTS:] for key, points in made.items()}

    async def forget(self, upstream: str) -> None:
        """Of an upstream that comes back its tests begin anew."""

        def work(session: Session) -> None:
            for table in ("toploc_sums", "toploc_points"):
                session.execute(f"DELETE FROM {table} WHERE upstream = ?", upstream)  # noqa: S608

        await self._database.run(work)
