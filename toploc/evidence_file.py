"""Requests and responses in a file, one JSON object `{"request": …, "response": …}` a line: what auditors read.

Needs pydantic alone, and pyarrow for tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ToplocError
from .evidence import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BATCH: Final = 1000
"""Rows of a Parquet file that are held at a time."""


class EvidenceFile:
    """Appends to the file at `path`, which is made where there is none, for its owner's eyes alone.

    Safe under threads and processes, by a lock on the file (on Windows under threads alone). A line that a killed
    process left torn is ended before the next is written, so that it costs no other.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def append(self, request: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        """One line. See `append_json`."""
        self.append_json(json.dumps({"request": request, "response": response}, ensure_ascii=False).encode())

    def append_json(self, data: bytes) -> None:
        """One line of evidence in JSON. Raises ToplocError, with nothing of it left in the file, where the disk is full
        or the file cannot be written."""
        line = data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
        try:
            with self._lock, _opened(self.path) as descriptor:
                end = os.lseek(descriptor, 0, os.SEEK_END)
                if end and os.pread(descriptor, 1, end - 1) != b"\n":
                    line = b"\n" + line
                try:
                    _write(descriptor, line)
                except OSError:
                    with contextlib.suppress(OSError):  # of what is no plain file; the first error says why
                        os.ftruncate(descriptor, end)
                    raise
        except OSError as error:
            raise ToplocError(f"{self.path}: the evidence was not stored: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file: `data` is its JSON, unread, or None with the `problem`. `offset` is in bytes."""

    number: int
    offset: int
    data: bytes | None
    problem: str | None = None


def read_lines(path: str | os.PathLike[str], offset: int = 0, number: int = 1) -> Iterator[Line]:
    """Every line from `offset` on, whose number is given; empty ones are passed over. Raises ToplocError.

    A line that does not begin and end as an object is torn: a process was killed while it wrote. One beyond the limit
    of evidence is reported and never held.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(offset)
            while line := file.readline(MAX_BYTES + 1):
                size = len(line)
                while not line.endswith(b"\n") and (rest := file.readline(MAX_BYTES)):
                    size, line = size + len(rest), rest
                text = line.strip()
                if size > MAX_BYTES:
                    yield Line(number, offset, None, f"longer than {MAX_BYTES:,} bytes")
                elif text and text.startswith(b"{") and text.endswith(b"}"):
                    yield Line(number, offset, text)
                elif text:
                    yield Line(number, offset, None, "torn: no JSON object, as when a process is killed in writing")
                offset, number = offset + size, number + 1
    except OSError as error:
        raise ToplocError(f"{path}: {error.strerror}") from None


def to_parquet(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Writes the lines of an evidence file as a Parquet table, and gives the number of rows; torn lines are left out.

    Columns: `id`, `model`, `created` (seconds since 1970, UTC), and `request` and `response` as JSON. Needs pyarrow.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [("id", "string"), ("model", "string"), ("created", "int64"), ("request", "string"), ("response", "string")]
    )
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
        for batch in file.iter_batches(BATCH, columns=["request", "response"]):
            for row in batch.to_pylist():
                yield f'{{"request": {row["request"]}, "response": {row["response"]}}}'.encode()


def _row(line: Line) -> dict[str, Any] | None:
    try:
        found = json.loads(line.data or b"")
        response = found["response"]
        created = response.get("created") or response.get("created_at")
        return {
            "id": response.get("id"),
            "model": response.get("model"),
            "created": int(created) if isinstance(created, int | float) else None,
            "request": json.dumps(found["request"], ensure_ascii=False),
            "response": json.dumps(response, ensure_ascii=False),
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


class _opened:  # noqa: N801
    """A descriptor of the file, locked against other processes."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def __enter__(self) -> int:
        if fcntl is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
