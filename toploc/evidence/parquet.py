"""Files of evidence as Parquet, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .file import Line, read_lines

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

BATCH: Final = 1000
"""Rows of a Parquet file that are held at a time."""


LEAST_SECONDS: Final = -(2**53)
MOST_SECONDS: Final = 2**53
"""Of `created`. Stops one number of a provider's from ending the conversion of a file."""


def to_parquet(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Writes the lines of an evidence file as a Parquet table, and gives the number of rows; torn lines are left out.

    Columns: `id`, `model`, `created` (seconds since 1970, UTC), `request`, `response` and, where a line has
    it, `request_body` as JSON. Needs pyarrow.
    """
    import pyarrow as pa
    from pyarrow import parquet

    texts = [(name, "string") for name in ("request", "response", "request_body")]
    schema = pa.schema([("id", "string"), ("model", "string"), ("created", "int64"), *texts])
    rows = 0
    with parquet.ParquetWriter(target, schema) as writer:
        held: list[dict[str, Any]] = []
        for line in read_lines(source):
            if (row := _row(line)) is not None:
                held.append(row)
                rows += 1
            if len(held) == BATCH:
                writer.write_table(pa.Table.from_pylist(held, schema))
                held = []
        writer.write_table(pa.Table.from_pylist(held, schema))
    return rows


def from_parquet(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The lines that `to_parquet` was given, in JSON. Needs pyarrow."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        kept = [name for name in ("request", "response", "request_body") if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH, columns=kept):
            for row in batch.to_pylist():
                body = row.get("request_body")
                exact = "" if body is None else f', "request_body": {body}'
                yield f'{{"request": {row["request"]}, "response": {row["response"]}{exact}}}'.encode()


def _row(line: Line) -> dict[str, Any] | None:
    try:
        item = json.loads(line.data or b"")
        response = item["response"]
        return {
            "id": _text(response.get("id")),
            "model": _text(response.get("model")),
            "created": _seconds(response.get("created") or response.get("created_at")),
            "request": _json(item["request"]),
            "response": _json(response),
            "request_body": _json(item["request_body"]) if "request_body" in item else None,
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _json(value: object) -> str:
    """With characters as they are, unless half of a surrogate pair is among them, which UTF-8 cannot say."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _text(value: object) -> str | None:
    """None for what is no text: a provider may write anything, and the column is text."""
    return value if isinstance(value, str) and value.isprintable() else None


def _seconds(value: object) -> int | None:
    """None for what a column of int64 does not hold, infinities among it."""
    whole = isinstance(value, int | float) and LEAST_SECONDS <= value <= MOST_SECONDS
    return int(value) if whole and isinstance(value, int | float) else None
