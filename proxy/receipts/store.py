"""Recent receipts by response id: in this process's memory, or in an SQLite file that processes share.

Storing never delays or costs an answer: what cannot be stored is counted, said in the log, and still in the response.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from toploc.errors import ToplocError

from .. import metrics
from ..log import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

IN_MEMORY: Final = 10_000
"""Receipts of about 1.2 KB each."""
ON_DISK: Final = 1_000_000
"""Receipts: 1.5 GB."""
PRUNE_EVERY: Final = 1_000
LISTED: Final = 1_024
"""Receipts of one response, the newest. Clients may choose response ids, so one id may have any number."""
PENDING: Final = 10_000
"""Answers that wait for the disk. Stops a disk that hangs from filling the memory."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's transaction."""
SCHEMA: Final = 1


class ReceiptStoreError(ToplocError):
    """The file of receipts cannot be used."""


class ReceiptStore(Protocol):
    def add(self, response_id: str, receipts: Sequence[str]) -> None:
        """Returns at once; several responses may have the same id, and all of their receipts are kept."""

    async def get(self, response_id: str) -> list[str]:
        """The newest receipts of that id, oldest first; of this process at least all that were added before."""


class MemoryStore:
    """The last receipts of this process."""

    def __init__(self, limit: int = IN_MEMORY) -> None:
        self._limit = limit
        self._by_id: dict[str, deque[str]] = {}
        self._order: deque[str] = deque()

    def add(self, response_id: str, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            self._by_id.setdefault(response_id, deque()).append(receipt)
            self._order.append(response_id)
            if len(self._order) > self._limit:
                oldest = self._order.popleft()
                self._by_id[oldest].popleft()
                if not self._by_id[oldest]:
                    del self._by_id[oldest]

    async def get(self, response_id: str) -> list[str]:
        return list(self._by_id.get(response_id, ()))[-LISTED:]


class SqliteStore:
    """The last receipts of all processes that name the same file, on one host.

    One thread has the connection, so what is read comes after what was written. Raises ReceiptStoreError, if the file
    cannot be written or is something else.
    """

    def __init__(self, path: str, limit: int = ON_DISK, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._path = path
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "toploc-receipts")
        self._free = threading.Semaphore(PENDING)
        self._failing = False
        self._added = 0
        try:
            self._connection = self._thread.submit(_connect, path, lock_timeout).result()
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            raise ReceiptStoreError(f"{path}: receipts cannot be stored there: {error}") from None

    def add(self, response_id: str, receipts: Sequence[str]) -> None:
        if not self._free.acquire(blocking=False):
            self._failed(len(receipts), "the disk does not keep up")
            return
        self._thread.submit(self._insert, response_id, list(receipts))

    async def get(self, response_id: str) -> list[str]:
        """Raises ReceiptStoreError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._select, response_id)
        except (sqlite3.Error, ValueError) as error:
            raise ReceiptStoreError(f"{self._path}: receipts cannot be read: {error}") from None

    def close(self) -> None:
        """Waits for what was added."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()

    def _insert(self, response_id: str, receipts: list[str]) -> None:
        rows = [(response_id, receipt) for receipt in receipts]
        try:
            with self._connection:
                self._connection.executemany("INSERT INTO receipts (response_id, receipt) VALUES (?, ?)", rows)
                self._added += len(rows)
                if self._added >= PRUNE_EVERY:
                    self._added = 0
                    self._connection.execute(
                        "DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?", (self._limit,)
                    )
        except (sqlite3.Error, ValueError) as error:
            self._failed(len(receipts), str(error))
        else:
            self._failing = False
        finally:
            self._free.release()

    def _select(self, response_id: str) -> list[str]:
        query = "SELECT receipt FROM receipts WHERE response_id = ? ORDER BY id DESC LIMIT ?"
        return [row[0] for row in self._connection.execute(query, (response_id, LISTED))][::-1]

    def _failed(self, count: int, why: str) -> None:
        metrics.RECEIPTS.labels("not_stored").inc(count)
        # Once, until it works again: a full disk must not fill up with lines about itself.
        if not self._failing:
            self._failing = True
            logger.error("toploc: receipts are not stored in %s: %s", self._path, why)


def check_store(path: str) -> None:
    """Raises ReceiptStoreError, if receipts cannot be stored in this file."""
    SqliteStore(path).close()


def _connect(path: str, lock_timeout: float) -> sqlite3.Connection:
    # SQLite would make the file with the umask's rights.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=lock_timeout)
    try:
        with connection:
            # Explicitly: several processes start at once, and Python begins no transaction before DDL.
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != SCHEMA and (version or tables):
                raise sqlite3.DatabaseError("the file is another program's, or another version's")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS receipts "
                "(id INTEGER PRIMARY KEY AUTOINCREMENT, response_id TEXT NOT NULL, receipt TEXT NOT NULL)"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS receipts_by_response ON receipts (response_id)")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        # No fsync at each commit; after a loss of power the last receipts may be missing, the file is whole.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection
