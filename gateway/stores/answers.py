"""Answers with their evidence, and what was found of them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from toploc_client.exchange import Exchange
from toploc_client.judgement import Judgement

from toploc.report import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .database import Database, Row, Session

PENDING: Final = "pending"
"""The verdict of an answer that is still to be checked."""

LEASE: Final = 900.0
"""Seconds for which an answer is whose gateway took it to check; longer than a verifier may take."""

COLUMNS: Final = (
    "id, made_at, upstream, model, route, response_id, verdict, reason, own_checks, report, request, response, attempts"
)

AGAIN: Final = ("verdict", "reason", "own_checks", "report", "response", "claimed_until")


@dataclass(frozen=True, slots=True)
class Answer:
    """`exchange` has both bodies; `own_checks` are what the gateway found by itself."""

    id: str
    made_at: float
    upstream: str
    model: str
    route: str
    response_id: str | None
    verdict: str
    reason: str | None
    own_checks: tuple[Check, ...]
    report: Judgement | None
    exchange: Exchange
    attempts: int = 0

    def to_json(self) -> dict[str, Any]:
        """Without the evidence."""
        return {
            "id": self.id,
            "made_at": self.made_at,
            "upstream": self.upstream,
            "model": self.model,
            "route": self.route,
            "response_id": self.response_id,
            "verdict": self.verdict,
            "reason": self.reason,
            "report": None if self.report is None else self.report.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """An answer as a list has it."""

    id: str
    made_at: float
    upstream: str
    model: str
    route: str
    response_id: str | None
    verdict: str
    reason: str | None


class Answers:
    """Each method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def failing(self) -> str:
        """Why nothing can be written at present; empty if it can."""
        return self._database.failing

    async def add(self, answer: Answer, held: float = 0.0) -> None:
        """`held`: the seconds for which nobody else is to check it. One that is added again is what was said last."""
        marks = ", ".join("?" * 14)
        again = ", ".join(f"{name} = excluded.{name}" for name in AGAIN)

        def work(session: Session) -> None:
            session.execute(
                f"INSERT INTO toploc_answers ({COLUMNS}, claimed_until) VALUES ({marks}) "  # noqa: S608
                f"ON CONFLICT (id) DO UPDATE SET {again}",
                *_values(answer),
                time.time() + held,
            )

        await self._database.run(work, stores=True)

    async def judge(self, answer_id: str, verdict: str, reason: str | None, report: Judgement | None) -> None:
        told = _told(report)

        def work(session: Session) -> None:
            sql = "UPDATE toploc_answers SET verdict = ?, reason = ?, report = ? WHERE id = ?"
            session.execute(sql, verdict, reason, told, answer_id)

        await self._database.run(work)

    async def get(self, answer_id: str) -> Answer | None:
        rows = await self._rows("WHERE id = ?", answer_id)
        return rows[0] if rows else None

    async def upstream_of(self, response_id: str) -> str | None:
        """Who made the last response of this id."""
        sql = "SELECT upstream FROM toploc_answers WHERE response_id = ? ORDER BY made_at DESC LIMIT 1"
        rows = await self._database.run(lambda session: session.rows(sql, response_id))
        return str(rows[0][0]) if rows else None

    async def listed(self, limit: int, *, before: float, upstream: str = "", verdict: str = "") -> list[Listed]:
        """The newest, without what was said in them."""
        where, values = ["made_at < ?"], list[object]([before])
        for name, value in (("upstream", upstream), ("verdict", verdict)):
            if value:
                where.append(f"{name} = ?")
                values.append(value)
        names = ", ".join(Listed.__dataclass_fields__)
        order = "ORDER BY made_at DESC LIMIT ?"
        sql = f"SELECT {names} FROM toploc_answers WHERE {' AND '.join(where)} {order}"  # noqa: S608
        rows = await self._database.run(lambda session: session.rows(sql, *values, limit))
        return [Listed(*row) for row in rows]

    async def pending(self) -> dict[tuple[str, str], int]:
        """How many answers are to be checked, by upstream and model."""
        sql = "SELECT upstream, model, COUNT(*) FROM toploc_answers WHERE verdict = ? GROUP BY upstream, model"
        rows = await self._database.run(lambda session: session.rows(sql, PENDING))
        return {(str(upstream), str(model)): int(number) for upstream, model, number in rows}

    async def recent(self, limit: int) -> list[Answer]:
        return await self._rows("ORDER BY made_at DESC LIMIT ?", limit)

    async def claim(self, limit: int) -> list[Answer]:
        """Answers to check, those that waited longest first; no other gateway takes them before their time is up."""
        now = time.time()

        def work(session: Session) -> list[Row]:
            where = "WHERE verdict = ? AND claimed_until < ? ORDER BY made_at LIMIT ?"
            found = session.locked(f"SELECT {COLUMNS} FROM toploc_answers {where}", PENDING, now, limit)  # noqa: S608
            for row in found:
                sql = "UPDATE toploc_answers SET claimed_until = ?, attempts = attempts + 1 WHERE id = ?"
                session.execute(sql, now + LEASE, row[0])
            return found

        return [_answer(row) for row in await self._database.run(work)]

    async def release(self, answer_ids: Sequence[str], after: float = 0.0) -> None:
        """Back to whoever claims them, after so many seconds."""

        def work(session: Session) -> None:
            for answer_id in answer_ids:
                sql = "UPDATE toploc_answers SET claimed_until = ? WHERE id = ? AND verdict = ?"
                session.execute(sql, time.time() + after, answer_id, PENDING)

        await self._database.run(work)

    async def counts(self) -> list[tuple[str, str, str, int]]:
        """Upstream, model, verdict, and how many answers."""
        sql = "SELECT upstream, model, verdict, COUNT(*) FROM toploc_answers GROUP BY upstream, model, verdict"
        return [(str(u), str(m), str(v), int(n)) for u, m, v, n in await self._database.run(lambda s: s.rows(sql))]

    async def purge(self, keep_days: float) -> int:
        """Forgets what is older, unless it is still to be checked; how many."""
        before = time.time() - keep_days * 86_400
        sql = "DELETE FROM toploc_answers WHERE made_at < ? AND verdict <> ?"
        return await self._database.run(lambda session: session.execute(sql, before, PENDING))

    async def _rows(self, where: str, *values: object) -> list[Answer]:
        sql = f"SELECT {COLUMNS} FROM toploc_answers {where}"  # noqa: S608
        return [_answer(row) for row in await self._database.run(lambda session: session.rows(sql, *values))]


def _values(answer: Answer) -> tuple[object, ...]:
    checks = json.dumps([check.model_dump(mode="json") for check in answer.own_checks])
    head = (answer.id, answer.made_at, answer.upstream, answer.model, answer.route, answer.response_id, answer.verdict)
    bodies = (answer.exchange.request, answer.exchange.response)
    return (*head, answer.reason, checks, _told(answer.report), *bodies, answer.attempts)


def _told(report: Judgement | None) -> str | None:
    """In ASCII: half a character, and NUL, are no text for every database."""
    return None if report is None else json.dumps(report.model_dump(mode="json"))


def _answer(row: Row) -> Answer:
    answer_id, made_at, upstream, model, route, response_id, verdict, reason, own, report, request, response, tries = (
        row
    )
    return Answer(
        *(answer_id, made_at, upstream, model, route, response_id, verdict, reason),
        own_checks=tuple(Check.model_validate(check) for check in json.loads(own)),
        report=None if report is None else Judgement.model_validate(json.loads(report)),
        exchange=Exchange(bytes(request), bytes(response)),
        attempts=int(tries),
    )
