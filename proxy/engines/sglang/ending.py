"""A start that cannot prove ends the server, at once and in one line."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from toploc.errors import ToplocError

from ..guards import load
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Iterator


def line_on(error: Exception) -> str:
    """What is said of an error that ends a start: a message of ours, or what else was raised, and where."""
    said = " ".join(str(error).split())
    if isinstance(error, ToplocError):
        return said
    # Python's own import machinery has no file.
    *_, place = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"toploc: the server cannot prove, and ends: {type(error).__name__}: {said} ({where})"


@contextlib.contextmanager
def or_exit() -> Iterator[None]:
    """In a scheduler, with whose end the server ends.

    Raises:
        SystemExit: what is inside raised an error. SGLang lets it through, where it would log others and go on.
    """
    try:
        yield
    except Exception as error:
        raise SystemExit(line_on(error)) from None


@contextlib.contextmanager
def or_end(main: int) -> Iterator[None]:
    """In a process that serves HTTP: all of the server's processes end where what is inside raises an error.

    Nothing is unwound. SGLang's lifespan, once begun, waits minutes for its warm-up, which waits for the server; and
    uvicorn starts a worker anew that ended, again and again.

    Args:
        main: the id of the process that all others are children of.
    """
    try:
        yield
    except Exception as error:
        print(line_on(error), file=sys.stderr, flush=True)
        _end(main)


def _end(main: int) -> NoReturn:
    """Kills all of the main process's children, and it. Its exit status is not 0, whoever of them ends it."""
    me = os.getpid()
    load(reliances.KILL)(main, include_parent=main != me, skip_pid=me, wait_timeout=None)
    os._exit(2)
