"""Requests to /v1/responses, for whoever fetches their responses later: what is fetched is held against them."""

from __future__ import annotations

import threading
from typing import Final

from toploc.recent import Recent

LIMIT: Final = 1_000
"""Requests that are kept, the last ones."""

MAX_BYTES: Final = 64 * 2**20
"""Of them all. Both bound a client's memory."""


class Asked:
    """By the response's id. Methods may be called by any number of threads."""

    def __init__(self, limit: int = LIMIT, max_bytes: int = MAX_BYTES) -> None:
        self._recent = Recent[bytes](count=limit, size=max_bytes, measure=len)
        self._lock = threading.Lock()

    def keep(self, response_id: str, body: bytes) -> None:
        """An id that was given to two requests is of neither: what is fetched under it could be either's."""
        with self._lock:
            before = self._recent.get(response_id)
            self._recent.put(response_id, body if before in (None, body) else b"")

    def get(self, response_id: str) -> bytes | None:
        with self._lock:
            return self._recent.get(response_id)
