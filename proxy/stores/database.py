"""An SQLite file that the API servers of one host share. Writing never delays or costs an answer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from toploc.errors import ToplocError

from ..log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PENDING: Final = 10_000
"""Writes that wait for the disk. Stops a disk that hangs from filling the memory."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's transaction."""


class StoreError(ToplocError):
    """The file of a store cannot be used."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a file has; `name` is what people are told that it keeps."""

    name: str
    version: int
    statements: tuple[str, ...]


class Database:
    """One thread has the connection, so what is read comes after what was written.

    Raises StoreError, if the file cannot be written or is something else.
    """

    def __init__(self, path: str, schema: Schema, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._path = path
        self._name = schema.name
        self._thread = ThreadPoolExecutor(1, f"toploc-{schema.name}")
        self._free = threading.Semaphore(PENDING)
        self._failing = False
        try:
            self._connection = self._thread.submit(_connect, path, schema, lock_timeout).result()
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            raise StoreError(f"{path}: {schema.name} cannot be stored there: {error}") from None

    def write(self, transaction: Callable[[sqlite3.Connection], None], ended: Callable[[bool], None]) -> None:
        """Returns at once; `ended` is told, from any thread, whether it was stored. If not, nothing of it was."""
        if self._free.acquire(blocking=False):
            self._thread.submit(self._run, transaction, ended)
        else:
            self._failed("the disk does not keep up", ended)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Raises StoreError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, query, self._connection)
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"{self._path}: {self._name} cannot be read: {error}") from None

    def close(self) -> None:
        """Waits for what was written."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()

    def _run(self, transaction: Callable[[sqlite3.Connection], None], ended: Callable[[bool], None]) -> None:
        try:
            with self._connection:
                transaction(self._connection)
        except (sqlite3.Error, ValueError) as error:
            self._failed(str(error), ended)
        else:
            self._failing = False
            ended(True)
        finally:
            self._free.release()

    def _failed(self, why: str, ended: Callable[[bool], None]) -> None:
        ended(False)
        # Once, until it works again: a full disk must not fill up with lines about itself.
        if not self._failing:
            self._failing = True
            logger.error("toploc: %s are not stored in %s: %s", self._name, self._path, why)


def _connect(path: str, schema: Schema, lock_timeout: float) -> sqlite3.Connection:
    # SQLite would make the file with the umask's rights.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=lock_timeout)
    try:
        with connection:
            # Explicitly: several processes start at once, and Python begins no transaction before DDL.
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != schema.version and (version or tables):
                raise sqlite3.DatabaseError("the file is another program's, or another version's")
            for statement in schema.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema.version}")
        # No fsync at each commit; after a loss of power the last rows may be missing, the file is whole.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection
