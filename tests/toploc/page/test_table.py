"""Tables that a browser brings, read by a process that may take only so much."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from toploc.evidence.parquet import to_parquet
from toploc.page.table import Tables, UnreadableTable
from toploc.scheme import MAX_ITEMS

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

LINES = [
    '{"request": {"seed": 4611686018427387905, "a": "\\n"}, "response": {"id": "x"}}',
    '{"request": [], "response": {}}',
]


def read(table: bytes) -> bytes:
    return asyncio.run(Tables().lines(table))


def test_a_table_is_the_lines_that_it_was_made_of(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("\n".join(LINES))
    assert to_parquet(tmp_path / "lines.jsonl", tmp_path / "table") == 2
    lines = read((tmp_path / "table").read_bytes()).split(b"\n")
    assert list(map(json.loads, lines)) == list(map(json.loads, LINES))


def test_what_is_no_table(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"request": ["{}"]}), tmp_path / "table")
    for table, message in (
        (b"", "cannot be read: ArrowInvalid"),
        (b"PAR1 and nothing", "cannot be read: ArrowInvalid"),
        ((tmp_path / "table").read_bytes(), "has no column 'response'"),
    ):
        with pytest.raises(UnreadableTable, match=message) as raised:
            read(table)
        assert not raised.value.missing


def test_a_table_that_unpacks_to_more_than_a_server_has(tmp_path: Path) -> None:
    """Some kilobytes of 15 gigabytes."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 900, pa.int32()), pa.array(["x" * 2**24]))
    table = pa.table({"request": text, "response": pa.array(["{}"] * 900)})
    parquet.write_table(table, tmp_path / "table", compression="zstd", store_schema=False)
    made = (tmp_path / "table").read_bytes()
    assert len(made) < 100_000
    with pytest.raises(UnreadableTable, match="unpacks to more than"):
        read(made)


def test_a_table_of_more_rows_than_are_verified_at_once(tmp_path: Path) -> None:
    parquet.write_table(pa.table({name: ["{}"] * (MAX_ITEMS + 1) for name in ("request", "response")}), tmp_path / "t")
    with pytest.raises(UnreadableTable, match="more than 1,000 rows"):
        read((tmp_path / "t").read_bytes())
