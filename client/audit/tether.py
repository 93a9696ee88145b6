"""Runs a command until it ends or until whoever holds this process's standard input is gone, however that ended.

    python -m toploc_client.audit.tether COMMAND …

A Ray worker is killed without notice, its children with it, but not theirs: a server would be left behind that holds a
GPU. So a grandchild waits for the end of the worker and stops the server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Final

STOP_SECONDS: Final = 30.0
"""Between SIGTERM and SIGKILL."""


def main(command: list[str]) -> int:
    """The command's exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What counts is the holder's end. Not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.setsid()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    threading.Thread(target=_watch, args=(process,), daemon=True).start()
    try:
        return process.wait()
    finally:
        _signal(process, signal.SIGKILL)


def _watch(process: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
