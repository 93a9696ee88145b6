"""Where workers and relay are found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not below TMPDIR: a socket's path may have 107 bytes at most.
PLACE: Final = Path("/tmp")  # noqa: S108
PREFIX: Final = "toploc-"

LOCK: Final = "lock"
"""A file in the directory that its server's process holds locked: the system lets go of it with the process."""


@contextlib.contextmanager
def channel_directory() -> Iterator[str]:
    """A fresh directory for the side channel's sockets that this user alone can enter."""
    sweep(PLACE)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
    try:
        being_made = directory / f".{LOCK}"
        with being_made.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            being_made.rename(directory / LOCK)
            yield str(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep(place: Path) -> None:
    """Removes directories of servers of this user that were killed, and so could not do it themselves."""
    for directory in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            # One without a lock is not ours, or is being made.
            with (directory / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)


def worker_address(directory: str, engine: int) -> str:
    """Where the worker of data-parallel engine number `engine` answers."""
    return f"ipc://{Path(directory) / f'engine-{engine}.sock'}"


def identity(engine: int) -> bytes:
    """What the worker of data-parallel engine number `engine` calls itself."""
    return b"engine-%d" % engine
