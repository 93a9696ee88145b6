"""How much of the server verifications may take at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from toploc.errors import ToplocError

from ..metrics import REQUESTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


ANSWERING_SECONDS: Final = 1.0
"""After the last answer that was seen in the engine, for which there is room for the next. Stops verifications from
filling the engine between one answer of a client and the next."""

BODIES: Final = 8
"""Longest bodies at once. A body is up to 25 times as long when it is parsed: `[],` is 3 bytes and an object of 64."""


class TooMany(ToplocError):
    """All places are taken."""


class TooLarge(ToplocError):
    """`field` is the path of what is beyond a limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Places:
    """Places for requests, and for prefills within them, and a budget of tokens.

    Args:
        requests: HTTP requests at once, each of which may hold a body; more are refused. Prefills at once; more wait.
        tokens: of prompts and answers in prefills at once, whose hidden states the worker holds in main memory.
        body_bytes: of one body; of all bodies at once `BODIES` times as many.
        beside: of `tokens`, how many while the engine answers requests, which share each of their steps with them; one
            prefill may be longer.
        answering: whether it does.
    """

    def __init__(
        self,
        requests: int,
        tokens: int,
        body_bytes: int,
        *,
        beside: int | None = None,
        answering: Callable[[], bool] = lambda: False,
    ) -> None:
        self.size = requests
        self.tokens = tokens
        self.body_bytes = body_bytes
        self.requests = 0
        self.running = 0
        self.most_running = 0
        self._bytes = BODIES * body_bytes
        self._free = tokens
        self._beside = tokens if beside is None else beside
        self._answering = answering
        self._answered_at = float("-inf")
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """A place, and what takes room for as many more bytes of the request's body. Both raise TooMany."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._bytes < size:
                raise TooMany("the bodies of verifications in progress have as many bytes as this server holds at once")
            self._bytes -= size
            held += size

        if self.requests >= self.size:
            raise TooMany(f"{self.size} verifications are in progress, the most that this server does at once")
        self.requests += 1
        try:
            with REQUESTS.track_inprogress():
                yield hold
        finally:
            self.requests -= 1
            self._bytes += held

    @asynccontextmanager
    async def prefill(self, tokens: int) -> AsyncIterator[None]:
        """Waits for its turn. `tokens` are at most the budget."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._release(tokens)
            else:
                self._admit()
            raise
        try:
            yield
        finally:
            self._release(tokens)

    def _admit(self) -> None:
        """In order, so that a long answer is not passed over for ever."""
        while self._waiting:
            tokens, turn = self._waiting[0]
            if not turn.cancelled() and not self._has_room(tokens):
                return
            self._waiting.popleft()
            if turn.cancelled():
                continue
            self._free -= tokens
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            turn.set_result(None)

    def _has_room(self, tokens: int) -> bool:
        if self.running >= self.size or tokens > self._free:
            return False
        now = time.monotonic()
        if self._answering():
            self._answered_at = now
        # Whoever waits is asked again when the prefill that runs has ended.
        is_free = not self.running or now - self._answered_at > ANSWERING_SECONDS
        return is_free or self.tokens - self._free + tokens <= self._beside

    def _release(self, tokens: int) -> None:
        self._free += tokens
        self.running -= 1
        self._admit()
