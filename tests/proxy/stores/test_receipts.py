"""Where receipts are kept, and that an answer never depends on it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from toploc_proxy.metrics import RECEIPTS
from toploc_proxy.stores import receipts as receipt_store
from toploc_proxy.stores.database import StoreError
from toploc_proxy.stores.receipts import LISTED, MemoryStore, SqliteStore, check_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toploc_proxy.stores.receipts import ReceiptStore


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "receipts.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    store = SqliteStore(path, lock_timeout=0.1)
    yield store
    store.close()


def get(store: ReceiptStore, response_id: str) -> list[str]:
    return asyncio.run(store.get(response_id))


def not_stored() -> float:
    return RECEIPTS.labels("not_stored")._value.get()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_receipts_by_response(kind: str, store: SqliteStore) -> None:
    """Equal ids, which clients may choose, overwrite nothing; there is an end to what is listed of one."""
    kept: ReceiptStore = MemoryStore() if kind == "memory" else store
    kept.add("a", ["1", "2"])
    kept.add("b", ["3"])
    kept.add("a", ["4"])
    assert get(kept, "a") == ["1", "2", "4"]
    assert get(kept, "b") == ["3"]
    assert get(kept, "'; DROP TABLE receipts; --") == []
    kept.add("many", [str(i) for i in range(LISTED + 5)])
    assert get(kept, "many") == [str(i) for i in range(5, LISTED + 5)]


def test_memory_is_bounded() -> None:
    store = MemoryStore(limit=3)
    for i in range(5):
        store.add("ab"[i % 2], [str(i)])
    assert (get(store, "a"), get(store, "b")) == (["2", "4"], ["3"])
    store.add("c", ["5", "6", "7"])
    assert (get(store, "a"), get(store, "b"), get(store, "c")) == ([], [], ["5", "6", "7"])
    assert store._by_id.keys() == {"c"}


def test_the_file_is_bounded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt_store, "PRUNE_EVERY", 2)
    store = SqliteStore(path, limit=3)
    for i in range(10):
        store.add("a", [str(i)])
    assert get(store, "a") == ["7", "8", "9"]
    store.close()


def test_the_file_outlives_the_process_and_is_shared(path: str, store: SqliteStore) -> None:
    code = (
        f"from toploc_proxy.stores.receipts import SqliteStore\ns = SqliteStore({path!r})\ns.add('a', ['1'])\ns.close()"
    )
    writers = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    store.add("a", ["2"])
    assert get(store, "a") == ["1", "1", "2"]


def test_the_file_is_its_users_alone(path: str, tmp_path: Path, store: SqliteStore) -> None:
    store.add("a", ["1"])
    assert get(store, "a") == ["1"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_a_locked_file(path: str, store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing waits for it; it is counted, said once, and works again afterwards."""
    before = not_stored()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.ERROR, "vllm.toploc"):
        store.add("a", ["1"])
        store.add("a", ["2", "3"])
        assert get(store, "a") == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "locked" in caplog.text
    assert not_stored() - before == 3
    other.execute("COMMIT")
    other.close()
    store.add("a", ["4"])
    assert get(store, "a") == ["4"]


def test_a_full_disk(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    before = not_stored()
    store._database._thread.submit(store._database._connection.execute, "PRAGMA max_page_count = 5").result()
    with caplog.at_level(logging.ERROR, "vllm.toploc"):
        for _ in range(5):
            store.add("a", ["x" * 4096])
        assert len(get(store, "a")) < 5
    assert "full" in caplog.text
    assert not_stored() - before == 5 - len(get(store, "a"))


def test_a_disk_that_hangs_fills_no_memory(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    before = not_stored()
    go_on = threading.Event()
    store._database._free = threading.Semaphore(2)
    store._database._thread.submit(go_on.wait)
    with caplog.at_level(logging.ERROR, "vllm.toploc"):
        for i in range(4):
            store.add("a", [str(i)])
    assert not_stored() - before == 2
    go_on.set()
    assert get(store, "a") == ["0", "1"]
    store.add("a", ["4"])
    assert get(store, "a") == ["0", "1", "4"]


def test_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database\n" * 100)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE something (x)")
    other.close()
    for name, why in (
        ("text", "not a database"),
        ("other", "another program"),
        ("none/x", "No such"),
        (".", "director"),
    ):
        with pytest.raises(StoreError, match=why) as caught:
            check_store(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert sqlite3.connect(tmp_path / "other").execute("PRAGMA journal_mode").fetchone() == ("delete",)
    check_store(str(tmp_path / "new"))
    check_store(str(tmp_path / "new"))


def test_a_broken_file_is_said_so(path: str) -> None:
    store = SqliteStore(path)
    store._database._thread.submit(store._database._connection.execute, "DROP TABLE receipts").result()
    with pytest.raises(StoreError, match="cannot be read"):
        get(store, "a")
    store.close()
