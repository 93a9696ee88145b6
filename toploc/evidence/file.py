"""Requests and responses in a file, one JSON object `{"request": …, "response": …}` a line: what auditors read.

Needs pydantic alone, and pyarrow for tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import ToplocError
from .strict_json import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
            for line, size in _lines(file):
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


def items(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each item of evidence and the number of its line: one for the whole stream, unless its first line is an object.

    Nothing longer than the limit of evidence is held; what is longer is cut a byte above, where it is refused.
    """
    lines = _lines(stream)
    first, _ = next(lines, (b"", 0))
    if not (first.strip().startswith(b"{") and first.strip().endswith(b"}")):
        whole = first + stream.read(MAX_BYTES + 1 - len(first))
        if whole.strip():
            yield 1, whole
        return
    for number, (line, _) in enumerate(chain([(first, 0)], lines), 1):
        if line.strip():
            yield number, line


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, cut a byte above the limit of evidence, and the length that it has."""
    while line := stream.readline(MAX_BYTES + 1):
        size, rest = len(line), line
        while not rest.endswith(b"\n") and (rest := stream.readline(MAX_BYTES)):
            size += len(rest)
        yield line, size
