"""The tap of a reply, by what reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..tap import LEFT, BaseTap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class AsyncTap(BaseTap):
    """Of a reply that is read with `await`; so is what `finish` gives."""

    def _install(self, response: Any) -> None:
        self._bytes_below: Callable[[int | None], AsyncIterator[bytes]] = response.aiter_bytes
        self._raw_below: Callable[[int | None], AsyncIterator[bytes]] = response.aiter_raw
        response.aiter_bytes, response.aiter_raw = self._read_bytes, self._read_raw

    async def _read_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        self._inside = True
        try:
            async for part in self._bytes_below(chunk_size):
                if self._take(part):
                    await self._finish(self._answer())
                if ready := self._ready(part):
                    yield ready
                    self._read = True
        except LEFT:
            self._left()
            raise
        if self._ends():
            await self._finish(self._answer())
        if self._late:
            yield self._ready(b"")

    def _read_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        self._refuse()
        return self._raw_below(chunk_size)
