"""Requests to /v1/responses, for whoever fetches their responses later: what is fetched is held against them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

LIMIT: Final = 1_000
"""Requests that are kept, the last ones."""

MAX_BYTES: Final = 64 * 2**20
"""Of them all. Both bound a client's memory."""


class Asked:
    """By the response's id. Methods may be called by any number of threads."""

    def __init__(self, limit: int = LIMIT, max_bytes: int = MAX_BYTES) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._size = 0
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, response_id: str, body: bytes) -> None:
        """An id that was given to two requests is of neither: what is fetched under it could be either's."""
        with self._lock:
            before = self._bodies.pop(response_id, None)
            kept = body if before in (None, body) else b""
            self._size += len(kept) - len(before or b"")
            self._bodies[response_id] = kept
            while len(self._bodies) > self._limit or self._size > self._max_bytes:
                self._size -= len(self._bodies.popitem(last=False)[1])

    def get(self, response_id: str) -> bytes | None:
        with self._lock:
            return self._bodies.get(response_id)
