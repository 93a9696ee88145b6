"""Where workers and relay are found."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def channel_directory() -> Iterator[str]:
    """A fresh directory for the side channel's sockets that this user alone can enter."""
    # Not below TMPDIR: a socket's path may have 107 bytes at most.
    directory = tempfile.mkdtemp(prefix="toploc-", dir="/tmp")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def worker_address(directory: str, engine: int) -> str:
    """Where the worker of data-parallel engine number `engine` answers."""
    return f"ipc://{Path(directory) / f'engine-{engine}.sock'}"


def identity(engine: int) -> bytes:
    """What the worker of data-parallel engine number `engine` calls itself."""
    return b"engine-%d" % engine
