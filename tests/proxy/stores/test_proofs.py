"""Where proofs are kept by response id, for how long, and that an answer never depends on it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from toploc_proxy.metrics import KEPT
from toploc_proxy.stores.database import StoreError
from toploc_proxy.stores.proofs import MemoryProofs, SqliteProofs, check_proofs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toploc_proxy.stores.proofs import ProofStore


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "proofs.db")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, path: str) -> Iterator[ProofStore]:
    """For three fields of 100 bytes, and the ids of as many more."""
    if request.param == "memory":
        yield MemoryProofs(limit=300, remembered=3)
    else:
        sqlite = SqliteProofs(path, limit=300, remembered=6)
        yield sqlite
        sqlite.close()


def get(store: ProofStore, number: int) -> bytes | str:
    return asyncio.run(store.get(name(number)))


def name(number: int) -> str:
    return f"chatcmpl-{number:016x}"


def field(number: int) -> bytes:
    return b"%100d" % number


def kept(outcome: str) -> float:
    return KEPT.labels(outcome)._value.get()


def test_the_oldest_expire_and_their_ids_are_known_for_a_while(store: ProofStore) -> None:
    before = kept("kept")
    for number in range(10):
        store.add(name(number), field(number))
    assert [get(store, number) for number in (7, 8, 9)] == [field(number) for number in (7, 8, 9)]
    assert [get(store, number) for number in (4, 5, 6)] == ["expired"] * 3
    assert [get(store, number) for number in (0, 3, 10)] == ["unknown"] * 3
    assert kept("kept") - before == 10


def test_what_is_there_stays(store: ProofStore) -> None:
    """Another answer under the same id has no right to it."""
    store.add(name(1), field(1))
    store.add(name(1), field(2))
    assert get(store, 1) == field(1)


def test_one_that_is_too_large_is_not_kept(store: ProofStore) -> None:
    store.add(name(1), field(1))
    store.add(name(2), b"x" * 301)
    store.add(name(3), field(3))
    assert [get(store, number) for number in (1, 2, 3)] == ["expired", "expired", field(3)]


@pytest.mark.parametrize(
    ("response_id", "is_kept"),
    [
        ("chatcmpl-a0a7223154808fc0", True),
        ("resp_a0a7223154808fc0", True),
        ("chatcmpl-batch-a0a7223154808fc0", True),
        ("cmpl-01234567-89ab-cdef-0123-456789abcdef", True),
        ("chatcmpl-0123456789abcdef0123456789abcdef", True),
        ("chatcmpl-1", False),
        ("chatcmpl-user-42", False),
        ("a0a7223154808fc0", False),
        ("", False),
        ("'; DROP TABLE proofs; --", False),
    ],
)
def test_only_ids_that_nobody_guesses(store: ProofStore, response_id: str, is_kept: bool) -> None:
    """Clients may choose ids, and whoever guesses one would read the answer."""
    store.add(response_id, field(1))
    assert asyncio.run(store.get(response_id)) == (field(1) if is_kept else "unknown")


def test_the_file_outlives_the_process_and_is_shared(path: str) -> None:
    ours = SqliteProofs(path)
    code = (
        f"from toploc_proxy.stores.proofs import SqliteProofs\ns = SqliteProofs({path!r})\n"
        f"s.add({name(1)!r}, b'theirs')\ns.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    ours.add(name(2), b"ours")
    assert (get(ours, 1), get(ours, 2)) == (b"theirs", b"ours")
    ours.close()
    again = SqliteProofs(path)
    assert get(again, 1) == b"theirs"
    again.close()


def test_a_full_disk_is_counted_and_said_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteProofs(path)
    store._database._thread.submit(store._database._connection.execute, "PRAGMA max_page_count = 8").result()
    before = kept("not_kept")
    with caplog.at_level(logging.ERROR, "vllm.toploc"):
        for number in range(20):
            store.add(name(number), b"x" * 10_000)
        assert get(store, 19) == "unknown"
    assert kept("not_kept") - before >= 18
    assert len([record for record in caplog.records if "proofs are not stored in" in record.message]) == 1
    store.close()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    other = tmp_path / "receipts.db"
    other.write_bytes(b"no database" * 100)
    for path in (other, tmp_path / "no" / "such.db"):
        with pytest.raises(StoreError, match="proofs cannot be stored there"):
            check_proofs(str(path))
