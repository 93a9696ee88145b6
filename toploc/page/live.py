"""What a page shows of a server, sent to browsers as it changes (server-sent events)."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PAUSE: Final = 1.0
"""Seconds between two looks at the state, of all browsers together."""

SILENCE: Final = 15.0
"""Seconds after which a browser is told that nothing changed: proxies close what is silent."""

BROWSERS: Final = 32
"""Stops whoever has a key from taking all connections of a server that has others to serve."""

MEDIA_TYPE: Final = "text/event-stream"

HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Of the stream. The last one is nginx's, which would hold events back."""


class TooManyBrowsers(ToplocError):
    """As many streams are open as a server has at once."""


class Live:
    """`look` gives the state as JSON has it. One that raises is told to browsers as `problem`.

    After `lifetime` seconds a stream ends, and its browser connects anew: a server that nobody can tell to `close`
    streams waits for them no longer when it stops. `stopping` says whether it does.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Any]],
        pause: float = PAUSE,
        *,
        lifetime: float = math.inf,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._look, self._pause, self._lifetime, self._stopping = look, pause, lifetime, stopping
        self._looking = asyncio.Lock()
        self._looked_at = -pause
        self._event = b""
        self._open = 0
        self._over = asyncio.Event()

    def close(self) -> None:
        """Ends all streams, so that a server can stop."""
        self._over.set()

    def stream(self) -> AsyncIterator[bytes]:
        """Events, the first at once. Raises TooManyBrowsers."""
        if self._open >= BROWSERS:
            raise TooManyBrowsers(f"{BROWSERS} pages are open, the most that this server keeps up to date")
        return self._events()

    async def _events(self) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            sent, sent_at, until = b"", 0.0, time.monotonic() + self._lifetime
            while not (self._over.is_set() or self._stopping() or time.monotonic() > until):
                event = await self._current()
                if event != sent:
                    sent, sent_at = event, time.monotonic()
                    yield event
                elif time.monotonic() - sent_at > SILENCE:
                    sent_at = time.monotonic()
                    yield b":\n\n"
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), self._pause)
        finally:
            self._open -= 1

    async def _current(self) -> bytes:
        async with self._looking:
            if time.monotonic() - self._looked_at >= self._pause:
                try:
                    self._event = _event("state", await self._look())
                except ToplocError as error:
                    self._event = _event("problem", str(error))
                self._looked_at = time.monotonic()
            return self._event


def _event(name: str, value: Any) -> bytes:
    """JSON in ASCII has no end of a line."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()
