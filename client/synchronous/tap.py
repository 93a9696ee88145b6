# Made from client/asynchronous/tap.py by scripts/synchronous.py: change that one.
"""The tap of a reply, by what reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..tap import LEFT, BaseTap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Tap(BaseTap):
    """Of a reply that is read without `await`."""

    def _install(self, response: Any) -> None:
        self._bytes_below: Callable[[int | None], Iterator[bytes]] = response.iter_bytes
        self._raw_below: Callable[[int | None], Iterator[bytes]] = response.iter_raw
        response.iter_bytes, response.iter_raw = self._read_bytes, self._read_raw

    def _read_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        self._inside = True
        try:
            for part in self._bytes_below(chunk_size):
                if self._take(part):
                    self._finish(self._answer())
                if ready := self._ready(part):
                    yield ready
                    self._read = True
        except LEFT:
            self._left()
            raise
        if self._ends():
            self._finish(self._answer())
        if self._late:
            yield self._ready(b"")

    def _read_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        self._refuse()
        return self._raw_below(chunk_size)
