"""One upstream: its address, its connections, and what it is asked in place of what the application wrote."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx
from toploc_client.kept import SECONDS, Kept, Reading, none_because, path_of
from toploc_client.seeds import NONE, PATIENCE, draw, sampler_in, wanted

from toploc.errors import ToplocError

from .headers import to_upstream
from .incoming import with_fields

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from .config import Timeouts, UpstreamOptions
    from .incoming import Incoming

DESCRIPTION: Final = 64 * 2**10
"""Bytes of what a server says of itself."""

ASK_AGAIN: Final = 300.0
"""Seconds after which a server is asked again which sampler it has."""


class Upstream:
    def __init__(self, options: UpstreamOptions, timeouts: Timeouts, connections: int) -> None:
        self.options = options
        self._key = None if options.api_key is None else options.api_key.get_secret_value()
        self._timeouts = timeouts
        # Below httpx's client, which would keep cookies, follow redirects, and read the machine's proxies and .netrc.
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._transport = httpx.AsyncHTTPTransport(limits=limits)
        self._sampler = ""
        self._asked_at = -ASK_AGAIN
        self._asking = asyncio.Lock()

    @property
    def name(self) -> str:
        return self.options.name

    def url(self, target: str) -> httpx.URL:
        """A base URL that ends in /v1 is the one that SDKs are given, and other routes lie beside it."""
        base = self.options.url
        if base.endswith("/v1"):
            return httpx.URL(base.removesuffix("/v1") + target)
        return httpx.URL(base + (target.removeprefix("/v1") if target.startswith("/v1/") else target))

    async def sampler(self) -> str:
        """As `toploc_client.seeds.sampler_in` reads it."""
        if time.monotonic() - self._asked_at >= ASK_AGAIN:
            async with self._asking:
                if time.monotonic() - self._asked_at >= ASK_AGAIN:
                    self._sampler = sampler_in(await self._description())
                    self._asked_at = time.monotonic()
        return self._sampler

    async def prepared(self, incoming: Incoming) -> Incoming:
        """With what has to be asked for: proofs, and a seed where the server could choose among texts."""
        if self.options.proofs == "none" or incoming.body is None or incoming.sent is None:
            return incoming
        parsed, fields = incoming.parsed(), dict[str, Any]()
        own = parsed.get("toploc")
        if self.options.proofs == "asked" and incoming.sent.kind is not None and (own is None or isinstance(own, dict)):
            fields["toploc"] = {"enabled": True, **(own or {})}
        draws = self.options.draw_seeds and self.options.verifiers and wanted(incoming.sent.kind, parsed)
        if draws and await self.sampler() != NONE:
            fields["seed"] = draw(True, parsed)
        if not fields:
            return incoming
        body = with_fields(incoming.body, fields)
        return replace(incoming, body=body, sent=replace(incoming.sent, body=body))

    async def send(self, incoming: Incoming, *, identity: bool) -> httpx.Response:
        """The head of the reply; whoever gets it closes it. Raises httpx.TransportError."""
        headers = to_upstream(incoming.headers, self._key, identity=identity)
        content: bytes | AsyncIterator[bytes] | None = incoming.body
        if incoming.body is None:
            length = next((value for name, value in incoming.headers if name == b"content-length"), None)
            chunked = any(name == b"transfer-encoding" for name, _ in incoming.headers)
            if length is not None:
                headers.append((b"content-length", length))
            content = incoming.stream if chunked or length not in (None, b"0") else None
        return await self._request(incoming.method, self.url(incoming.target), headers, content)

    async def close(self) -> None:
        await self._transport.aclose()

    async def _request(
        self,
        method: str,
        url: httpx.URL,
        headers: list[tuple[bytes, bytes]],
        content: bytes | AsyncIterator[bytes] | None,
    ) -> httpx.Response:
        times = httpx.Timeout(self._timeouts.read, connect=self._timeouts.connect)
        extensions = {"timeout": times.as_dict()}
        request = httpx.Request(method, url, headers=headers, content=content, extensions=extensions)
        return await self._transport.handle_async_request(request)

    async def proofs_of(self, response_id: str) -> Kept:
        """Of an answer that came without. Raises nothing, as `toploc_client.asynchronous.kept.fetch`."""
        try:
            reading = Reading()
            async with asyncio.timeout(SECONDS), aclosing(self._get(path_of(response_id))) as parts:
                async for part in parts:
                    reading.add(part)
            return reading.kept(response_id)
        except (httpx.HTTPError, TimeoutError, ToplocError, ValueError, RecursionError) as error:
            return none_because(error)

    async def _description(self) -> object:
        """None for what is none."""
        body = bytearray()
        try:
            async with asyncio.timeout(PATIENCE), aclosing(self._get("/toploc")) as parts:
                async for part in parts:
                    body += part
                    if len(body) > DESCRIPTION:
                        return None
            return json.loads(body)
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError):
            return None

    async def _get(self, path: str) -> AsyncGenerator[bytes]:
        """What the server says of itself; nothing where it says so with another status."""
        headers = to_upstream((), self._key, identity=True)
        reply = await self._request("GET", self.url(f"/v1{path}"), headers, None)
        try:
            if reply.status_code == 200:
                async for part in reply.aiter_bytes():
                    yield part
        finally:
            await reply.aclose()
