"""Answers that are checked while the application goes on. None is lost: what is not checked is spooled."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Item = tuple[Any, Any]
"""What is to be checked, and the SDK's object of the response."""

THREADS: Final = 4
"""That check at once; each waits for a verifier most of its time."""
CLOSE_SECONDS: Final = 10.0
"""How long the interpreter's exit waits for checks."""


class Background:
    """A bounded queue and the threads that empty it by `check(given, response)`.

    What finds the queue full, and what is left when time is up at `close` or at the interpreter's exit, goes to
    `spool(given)`.
    """

    def __init__(self, check: Callable[..., None], spool: Callable[[Any], None], size: int) -> None:
        self._check, self._spool, self._size = check, spool, size
        self._lock = threading.Lock()
        self._begin()
        atexit.register(_close, weakref.ref(self))

    def _begin(self) -> None:
        self._queue: queue.Queue[Item | None] = queue.Queue()
        self._busy: dict[int, Item] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._process = os.getpid()

    def submit(self, given: Any, response: Any) -> None:
        with self._lock:
            if self._process != os.getpid():  # threads do not survive a fork, and the queue is the parent's
                self._begin()
            if not self._closed and self._queue.qsize() < self._size:
                self._queue.put((given, response))
                if len(self._threads) < THREADS:
                    self._start()
                return
        self._spool(given)

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until everything submitted is done; whether it is. `timeout` is in seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._queue.all_tasks_done.wait(left)
        return True

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Finishes what is under way within `timeout` seconds, and spools the rest."""
        with self._lock:
            if self._closed or self._process != os.getpid():
                return
            self._closed = True
        self.flush(timeout)
        left: list[Item] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                left.append(item)
            self._queue.task_done()
        # Their threads are still asking; should one be answered yet, the answer is checked twice.
        left += [*self._busy.values()]
        for given, _ in left:
            self._spool(given)
        for _ in self._threads:
            self._queue.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, args=(self._queue,), name="toploc-check", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, items: queue.Queue[Item | None]) -> None:
        while (item := items.get()) is not None:
            self._busy[threading.get_ident()] = item
            try:
                self._check(*item)
            finally:
                self._busy.pop(threading.get_ident(), None)
                items.task_done()
        items.task_done()


def _close(reference: weakref.ref[Background]) -> None:
    if (background := reference()) is not None:
        background.close()
