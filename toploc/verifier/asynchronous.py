"""A verifier that is a server: evidence goes to its `POST /v1/toploc/verify`, and its report comes back.

Needs httpx and pydantic; no torch.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import httpx

from .replies import RETRIES, TIMEOUT, Again, EvidenceLike, Lines, Remote, reason_of, to_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ..errors import ToplocError
    from ..report import Report


class AsyncVerifier:
    """Asks the server at `url`, with or without `/v1` at its end; `api_key` is its `--api-key`.

    The report is that server's word: whoever runs it is trusted. Where it cannot be reached, is busy or restarts, it is
    asked again up to `retries` times, after 0.5 s, 1 s, 2 s, … or as long as it says, up to 30 s. `timeout` is in
    seconds, for all attempts and pauses together; in `verify_many` for each silence, since a batch may take long.
    Methods may be called by any number of tasks.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = TIMEOUT, retries: int = RETRIES
    ) -> None:
        self._remote = Remote(url, api_key, timeout, retries)
        self._http = httpx.AsyncClient(timeout=self._remote.patience(), headers=self._remote.headers)

    @property
    def url(self) -> str:
        return self._remote.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def verify(self, evidence: EvidenceLike) -> Report:
        """The report on a request and its response: `{"request": …, "response": …}`, as JSON or as a mapping.

        What the server finds malformed is a report with verdict `error`. Raises VerifierUnavailable where it gives no
        report after its last retry.
        """
        content, deadline = to_json(evidence), self._remote.deadline()
        for attempt in range(self._remote.retries + 1):
            try:
                return self._remote.report(*await self._post(content, deadline))
            except Again as again:
                await asyncio.sleep(self._remote.wait(attempt, again, deadline))
        raise AssertionError  # `wait` has raised

    async def verify_many(self, items: Sequence[EvidenceLike]) -> AsyncIterator[tuple[int, Report | ToplocError]]:
        """Reports, or what kept an item from one, each with its item's index, as they are done. At most 1,000 items.

        Raises VerifierUnavailable where the server cannot be reached, and where it leaves before the last item; those
        that came stand.
        """
        content, deadline = self._remote.batch(items), self._remote.deadline()
        for attempt in range(self._remote.retries + 1):
            try:
                async for line in self._lines(content, len(items)):
                    yield line
                return
            except Again as again:
                await asyncio.sleep(self._remote.wait(attempt, again, deadline))

    async def describe(self) -> dict[str, Any]:
        """What `GET /v1/toploc` says: versions, models, thresholds, keys, limits. Raises VerifierUnavailable."""
        try:
            response = await self._http.get(self._remote.home, timeout=min(self._remote.timeout, 30))
        except httpx.HTTPError as error:
            self._remote.unavailable(reason_of(error))
        return self._remote.description(response)

    async def _post(self, content: bytes, deadline: float) -> tuple[httpx.Response, bytes]:
        timeout = self._remote.patience(deadline)
        try:
            async with self._http.stream("POST", self._remote.path, content=content, timeout=timeout) as response:
                parts = bytearray()
                async for part in response.aiter_bytes():
                    parts += part
                    self._remote.check(len(parts), deadline)
                return response, bytes(parts)
        except httpx.HTTPError as error:
            raise Again(reason_of(error)) from None

    async def _lines(self, content: bytes, count: int) -> AsyncIterator[tuple[int, Report | ToplocError]]:
        reader = Lines(self._remote, count)
        try:
            async with self._http.stream("POST", self._remote.path, content=content) as response:
                if not response.is_success:
                    self._remote.refuse_batch(response, await response.aread())
                async for part in response.aiter_bytes():
                    for line in reader.feed(part):
                        yield line
        except httpx.HTTPError as error:
            reader.broke(reason_of(error))
        reader.end()
