"""One verdict a row, in a file for each file of answers: there once all of it is done, and then whole."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from toploc.errors import ToplocError

from .arrow import arrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .entry import Entry

FORMATS: Final = ("parquet", "jsonl")

BATCH: Final = 10_000
"""Rows that are held at once."""

FIELDS: Final = {
    "file": "string",
    "row": "int64",
    "id": "string",
    "verdict": "string",
    "reasons": "string",
    "coverage": "string",
    "model": "string",
    "tokens": "int64",
    "sha256": "string",
    "verifier": "string",
}
"""Columns, with Arrow's names of their types. `row` counts from 0; `reasons` are those against the answer."""


def verdict_of(entry: Entry, file: str) -> dict[str, Any]:
    against = "; ".join(entry.reasons) if entry.report.verdict != "accepted" else ""
    return {
        "file": file,
        "row": entry.line - 1,
        "id": entry.id,
        "verdict": entry.report.verdict,
        "reasons": against,
        "coverage": entry.report.coverage,
        "model": entry.model,
        "tokens": entry.tokens,
        "sha256": entry.sha256,
        "verifier": entry.verifier,
    }


def write_verdicts(target: Path, file: str, entries: Iterable[Entry]) -> None:
    """Writes a row for each entry, in the order of the file, and then gives the file its name. Raises ToplocError."""
    new = target.with_name(f".{target.name}.new")
    rows = (verdict_of(entry, file) for entry in entries)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".parquet":
            _write_parquet(new, rows)
        else:
            with new.open("wb") as out:
                for row in rows:
                    out.write(orjson.dumps(row) + b"\n")
        new.replace(target)
    except OSError as error:
        raise ToplocError(f"{error.filename or target}: {error.strerror or error}") from None


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    pa, parquet = arrow(path, "give --verdicts jsonl")
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in FIELDS.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        while held := list(islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(held, schema))
