"""Files of answers, a line or a row each: what an audit reads them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from toploc.errors import ToplocError
from toploc.evidence.file import Line, read_lines

from .arrow import arrow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .columns import Columns

BATCH: Final = 1000
"""Rows that are held at once."""

SUFFIXES: Final = (".jsonl", ".parquet")
"""Of the files that are read. Others in a folder are somebody else's."""


class Reader(Protocol):
    """Of one file."""

    @property
    def path(self) -> Path:
        """The file's."""

    def lines(self, offset: int = 0, number: int = 1) -> Iterator[Line]:
        """Every answer from `offset` on, whose number is given. Raises ToplocError."""


class JsonLines:
    """Evidence, a JSON object a line; offsets are in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, offset: int = 0, number: int = 1) -> Iterator[Line]:
        return read_lines(self.path, offset, number)


class Rows:
    """Rollouts in a Parquet file; an offset is a row's place, from 0. Raises ToplocError for columns that are none."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._columns = columns
        with self._opened() as file:
            kinds = {each.name: _kind(each.type) for each in file.schema_arrow}
        self._found = columns.find(str(path), kinds)

    def lines(self, offset: int = 0, number: int = 1) -> Iterator[Line]:
        names = list(dict.fromkeys(self._found.values()))
        with self._opened() as file:
            place = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if place + count <= offset:
                    place += count
                    continue
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=names):
                    first = max(0, offset - place)
                    for row in batch.slice(first).to_pylist():
                        at = place + first
                        first += 1
                        yield self._line(row, at, number + at - offset)
                    place += batch.num_rows

    def _line(self, row: dict[str, Any], place: int, number: int) -> Line:
        try:
            return Line(number, place, self._columns.evidence(row, self._found))
        except ValueError as error:
            return Line(number, place, None, str(error))

    def _opened(self) -> Any:
        pa, parquet = arrow(self.path)
        try:
            return parquet.ParquetFile(self.path)
        except OSError as error:
            raise ToplocError(f"{self.path}: {error.strerror or error}") from None
        except pa.ArrowException as error:
            raise ToplocError(f"{self.path}: no whole Parquet file: {str(error).splitlines()[0][:200]}") from None


def reader_of(path: Path, columns: Columns) -> Reader:
    """By the file's ending. Raises ToplocError."""
    return Rows(path, columns) if path.suffix == ".parquet" else JsonLines(path)


def _kind(of: Any) -> str:
    """What a column holds, in the words of `columns.KINDS`; Arrow's own for what is none of these."""
    from pyarrow import types

    is_list = types.is_list(of) or types.is_large_list(of) or types.is_fixed_size_list(of)
    if is_list and types.is_integer(of.value_type):
        return "ids"
    if types.is_string(of) or types.is_large_string(of) or types.is_binary(of) or types.is_large_binary(of):
        return "text"
    if types.is_struct(of):
        return "object"
    return "integer" if types.is_integer(of) else str(of)
