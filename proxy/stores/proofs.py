"""Recent proofs by response id: in this process's memory, or in an SQLite file that processes share.

They have the answer's token ids, so only an id that cannot be guessed has its proofs kept.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

from toploc.recent import Recent

from .database import LOCK_TIMEOUT, Database, Schema

if TYPE_CHECKING:
    import sqlite3

IN_MEMORY: Final = 64 * 2**20
"""Bytes of fields: some 3,500 answers of 1,000 tokens."""
ON_DISK: Final = 4 * 2**30
"""Bytes of fields: some 200,000 such answers."""
REMEMBERED: Final = 1_000_000
"""Ids of which the file knows that there were proofs; in memory a tenth of it."""

UNGUESSABLE: Final = re.compile(
    "(?:[a-z]+[-_])+(?:[0-9a-f]{16}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    "|(?:[a-z]+[-_])*[0-9a-f]{32}"
)
"""Engines' own ids (`random_uuid` in vllm/utils, uuid4 in SGLang), and clients' where they are UUIDs. With a number as
its `X-Request-Id` a client would have anybody read what it was told."""

Missing = Literal["unknown", "expired"]

SCHEMA: Final = Schema(
    "proofs",
    1,
    (
        """CREATE TABLE IF NOT EXISTS proofs
           (id INTEGER PRIMARY KEY AUTOINCREMENT, response_id TEXT NOT NULL UNIQUE, field BLOB)""",
        "CREATE INDEX IF NOT EXISTS proofs_there ON proofs (id) WHERE field IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL)",
        "INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total)",
    ),
)


class ProofStore(Protocol):
    def add(self, response_id: str, field: bytes) -> None:
        """Returns at once. What is there under an id stays: it is its own, and no later response has a right to it."""

    async def get(self, response_id: str) -> bytes | Missing:
        """The field `toploc_proofs` of that response in JSON, or why there is none."""


class MemoryProofs:
    """The last proofs of this process."""

    def __init__(self, limit: int = IN_MEMORY, remembered: int = REMEMBERED // 10) -> None:
        self._recent = Recent[bytes](size=limit, measure=len, remembered=remembered)

    def add(self, response_id: str, field: bytes) -> None:
        if UNGUESSABLE.fullmatch(response_id) and self._recent.get(response_id) is None:
            _count(True)
            self._recent.put(response_id, field)

    async def get(self, response_id: str) -> bytes | Missing:
        return self._recent.get(response_id) or ("expired" if self._recent.has_gone(response_id) else "unknown")


class SqliteProofs:
    """The last proofs of all processes that name the same file, on one host.

    Raises StoreError, if the file cannot be written or is something else.
    """

    def __init__(
        self, path: str, limit: int = ON_DISK, remembered: int = REMEMBERED, lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        self._limit = limit
        self._remembered = remembered
        self._database = Database(path, SCHEMA, lock_timeout)
        self.close = self._database.close

    def add(self, response_id: str, field: bytes) -> None:
        if UNGUESSABLE.fullmatch(response_id):
            self._database.write(partial(self._insert, response_id, field), _count)

    async def get(self, response_id: str) -> bytes | Missing:
        """Raises StoreError."""
        return await self._database.read(partial(_select, response_id))

    def _insert(self, response_id: str, field: bytes, connection: sqlite3.Connection) -> None:
        row = (response_id, field)
        if connection.execute("INSERT OR IGNORE INTO proofs (response_id, field) VALUES (?, ?)", row).rowcount:
            connection.execute("UPDATE total SET bytes = bytes + ?", (len(field),))
            while _one(connection, "SELECT bytes FROM total") > self._limit:
                _expire(connection)
            connection.execute("DELETE FROM proofs WHERE id <= (SELECT max(id) FROM proofs) - ?", (self._remembered,))


def _count(stored: bool) -> None:
    # Prometheus decides when it is imported whether several processes count. SGLang says so once it starts them, and
    # files are checked before.
    from .. import metrics

    metrics.KEPT.labels("kept" if stored else "not_kept").inc()


def _expire(connection: sqlite3.Connection) -> None:
    """The oldest tenth of the fields goes; their ids stay."""
    there = _one(connection, "SELECT count(*) FROM proofs WHERE field IS NOT NULL")
    last = _one(connection, "SELECT id FROM proofs WHERE field IS NOT NULL ORDER BY id LIMIT 1 OFFSET ?", there // 10)
    freed = _one(connection, "SELECT sum(length(field)) FROM proofs WHERE field IS NOT NULL AND id <= ?", last)
    connection.execute("UPDATE proofs SET field = NULL WHERE field IS NOT NULL AND id <= ?", (last,))
    connection.execute("UPDATE total SET bytes = bytes - ?", (freed,))


def _one(connection: sqlite3.Connection, query: str, *values: int) -> int:
    return int(connection.execute(query, values).fetchone()[0])


def _select(response_id: str, connection: sqlite3.Connection) -> bytes | Missing:
    row = connection.execute("SELECT field FROM proofs WHERE response_id = ?", (response_id,)).fetchone()
    if row is None:
        return "unknown"
    return "expired" if row[0] is None else bytes(row[0])


def check_proofs(path: str) -> None:
    """Raises StoreError, if proofs cannot be stored in this file."""
    SqliteProofs(path).close()
