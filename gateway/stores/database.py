"""A connection to SQLite or PostgreSQL, on a thread of its own; one dialect of SQL for both."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from toploc.foreign import printable

from ..errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
Row = tuple[Any, ...]

PATIENCE: Final = 10
"""Seconds for a lock that another gateway holds, and for a connection."""

MAKING: Final = 0x746F706C6F63
"""The lock of whoever makes the tables: "toploc"."""

PROBE: Final = 64 * 2**10
"""Bytes, as many as an answer has."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS toploc_answers (
    id TEXT PRIMARY KEY, made_at DOUBLE PRECISION NOT NULL, upstream TEXT NOT NULL, model TEXT NOT NULL,
    route TEXT NOT NULL, response_id TEXT, verdict TEXT NOT NULL, reason TEXT, own_checks TEXT NOT NULL, report TEXT,
    request {bytes} NOT NULL, response {bytes} NOT NULL, claimed_until DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS toploc_answers_verdict ON toploc_answers (verdict, claimed_until);
CREATE INDEX IF NOT EXISTS toploc_answers_response ON toploc_answers (response_id);
CREATE INDEX IF NOT EXISTS toploc_answers_made ON toploc_answers (made_at);
CREATE INDEX IF NOT EXISTS toploc_answers_listed ON toploc_answers (verdict, made_at);
CREATE TABLE IF NOT EXISTS toploc_standing (
    upstream TEXT PRIMARY KEY, state TEXT NOT NULL, since DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION,
    reason TEXT, answer TEXT, probation INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS toploc_sums (
    upstream TEXT NOT NULL, model TEXT NOT NULL, test TEXT NOT NULL, value DOUBLE PRECISION NOT NULL,
    highest DOUBLE PRECISION NOT NULL, answers INTEGER NOT NULL, threshold DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (upstream, model, test));
CREATE TABLE IF NOT EXISTS toploc_points (
    upstream TEXT NOT NULL, model TEXT NOT NULL, test TEXT NOT NULL, answers INTEGER NOT NULL,
    value DOUBLE PRECISION NOT NULL, threshold DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (upstream, model, test, answers));
CREATE TABLE IF NOT EXISTS toploc_tally (
    day INTEGER NOT NULL, upstream TEXT NOT NULL, model TEXT NOT NULL, verdict TEXT NOT NULL, bucket INTEGER NOT NULL,
    answers BIGINT NOT NULL, seconds DOUBLE PRECISION NOT NULL, tokens BIGINT NOT NULL,
    PRIMARY KEY (day, upstream, model, verdict, bucket));
CREATE TABLE IF NOT EXISTS toploc_probe (content {bytes} NOT NULL)
"""


class Session:
    """A transaction."""

    def __init__(self, connection: Any, postgres: bool) -> None:
        self._connection, self._postgres = connection, postgres

    def execute(self, sql: str, *values: object) -> int:
        """How many rows it changed. Values stand for `?`."""
        return int(self._run(sql, values).rowcount)

    def rows(self, sql: str, *values: object) -> list[Row]:
        return list(self._run(sql, values).fetchall())

    def locked(self, sql: str, *values: object) -> list[Row]:
        """Rows that nobody else changes before this transaction ends."""
        return self.rows(f"{sql} FOR UPDATE" if self._postgres else sql, *values)

    def _run(self, sql: str, values: Sequence[object]) -> Any:
        return self._connection.execute(sql.replace("?", "%s") if self._postgres else sql, values)


class Database:
    """`url`: `sqlite:FILE`, or `postgresql://…`, for which psycopg has to be installed.

    Every method raises StoreUnavailable, and the next call connects anew.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._postgres = not url.startswith("sqlite:")
        self._connection: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="toploc-store")
        self.failing = ""
        """Why a call failed; empty once an answer could be stored since."""

    async def run(self, work: Callable[[Session], T], *, stores: bool = False) -> T:
        """What `work` returns, once its transaction is committed. One that a connection was lost under is tried once
        more, so `work` has to bear that. `stores`: it wrote as much as an answer, so that others can be."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, work, stores)

    async def probe(self) -> None:
        """Whether an answer could be written: a full disk may still have room for less."""

        def write(session: Session) -> None:
            session.execute("INSERT INTO toploc_probe VALUES (?)", bytes(PROBE))

        await self.run(write, stores=True)
        await self.run(lambda session: session.execute("DELETE FROM toploc_probe"))

    async def close(self) -> None:
        """After what was begun."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _run(self, work: Callable[[Session], T], stores: bool) -> T:
        retries = self._postgres and self._connection is not None  # a connection that was good may have gone since
        try:
            try:
                made = self._transact(work)
            except self._lost():
                self._disconnect()
                if not retries:
                    raise
                made = self._transact(work)
        except self._errors() as error:
            self._disconnect()
            self.failing = printable(f"{type(error).__name__}: {error}".strip())
            raise StoreUnavailable(f"store: {self.failing}") from None
        self.failing = "" if stores else self.failing
        return made

    def _transact(self, work: Callable[[Session], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        session = Session(self._connection, self._postgres)
        if self._postgres:
            with self._connection.transaction():
                return work(session)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            made = work(session)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return made

    def _connect(self) -> Any:
        connection: Any = self._connect_postgres() if self._postgres else self._connect_sqlite()
        session = Session(connection, self._postgres)
        try:
            with connection.transaction() if self._postgres else nullcontext():
                if self._postgres:  # whose IF NOT EXISTS does not see what another connection is making
                    session.execute("SELECT pg_advisory_xact_lock(?)", MAKING)
                for statement in SCHEMA.format(bytes="BYTEA" if self._postgres else "BLOB").split(";\n"):
                    session.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_sqlite(self) -> sqlite3.Connection:
        path = Path(self._url.removeprefix("sqlite:"))
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # it has what people asked
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # what was committed survives this process, if not the machine
        return connection

    def _connect_postgres(self) -> Any:
        import psycopg

        return psycopg.connect(self._url, autocommit=True, connect_timeout=PATIENCE)

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            except self._errors():
                return

    def _errors(self) -> tuple[type[Exception], ...]:
        return (sqlite3.Error, OSError, ImportError, *self._lost())

    def _lost(self) -> tuple[type[Exception], ...]:
        """Errors of psycopg, once there is one."""
        if not self._postgres:
            return ()
        try:
            import psycopg
        except ImportError:
            return ()
        return (psycopg.Error,)
