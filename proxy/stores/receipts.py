"""Recent receipts by response id: in this process's memory, or in an SQLite file that processes share.

Storing never delays or costs an answer: what cannot be stored is counted, said in the log, and still in the response.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from .database import LOCK_TIMEOUT, Database, Schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

IN_MEMORY: Final = 10_000
"""Receipts of about 1.2 KB each."""
ON_DISK: Final = 1_000_000
"""Receipts: 1.5 GB."""
PRUNE_EVERY: Final = 1_000
LISTED: Final = 1_024
"""Receipts of one response, the newest. Clients may choose response ids, so one id may have any number."""

SCHEMA: Final = Schema(
    "receipts",
    1,
    (
        """CREATE TABLE IF NOT EXISTS receipts
           (id INTEGER PRIMARY KEY AUTOINCREMENT, response_id TEXT NOT NULL, receipt TEXT NOT NULL)""",
        "CREATE INDEX IF NOT EXISTS receipts_by_response ON receipts (response_id)",
    ),
)


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

    Raises StoreError, if the file cannot be written or is something else.
    """

    def __init__(self, path: str, limit: int = ON_DISK, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._limit = limit
        self._added = 0
        self._database = Database(path, SCHEMA, lock_timeout)
        self.close = self._database.close

    def add(self, response_id: str, receipts: Sequence[str]) -> None:
        rows = [(response_id, receipt) for receipt in receipts]
        self._database.write(partial(self._insert, rows), partial(_count, len(rows)))

    async def get(self, response_id: str) -> list[str]:
        """Raises StoreError."""
        return await self._database.read(partial(_select, response_id))

    def _insert(self, rows: list[tuple[str, str]], connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO receipts (response_id, receipt) VALUES (?, ?)", rows)
        self._added += len(rows)
        if self._added >= PRUNE_EVERY:
            self._added = 0
            connection.execute("DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?", (self._limit,))


def _count(receipts: int, stored: bool) -> None:
    if not stored:
        from .. import metrics  # not before, see `stores.proofs`

        metrics.RECEIPTS.labels("not_stored").inc(receipts)


def _select(response_id: str, connection: sqlite3.Connection) -> list[str]:
    query = "SELECT receipt FROM receipts WHERE response_id = ? ORDER BY id DESC LIMIT ?"
    return [row[0] for row in connection.execute(query, (response_id, LISTED))][::-1]


def check_store(path: str) -> None:
    """Raises StoreError, if receipts cannot be stored in this file."""
    SqliteStore(path).close()
