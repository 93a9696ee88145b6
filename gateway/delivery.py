"""Between an upstream's reply and the application.

Inline, an answer is held until it was checked, streams too: nothing of one that is refused goes out. In the background
a stream goes out as it comes; its last event waits until the answer is in the store.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import httpx
from starlette.responses import Response, StreamingResponse
from toploc_client.tap import Tap, is_stream

from .errors import BILLED, body_of
from .field import Stripper, without
from .headers import to_application

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.types import Send
    from toploc_client.kept import FetchAsync
    from toploc_client.routes import Sent

    from .auditor import Auditor
    from .finding import Finding

BROKEN: Final = (httpx.TransportError, httpx.StreamError, httpx.DecodingError, TimeoutError)
"""Of a reply that does not come to its end."""

ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")
"""Of events."""


class TooLong(Exception):
    """A reply is longer than what is held of one; never leaves this folder."""


class Held:
    """A reply that is read whole before anything of it goes out."""

    def __init__(self, reply: httpx.Response, limit: int) -> None:
        self.reply, self._limit = reply, limit
        self.body = b""

    async def read(self, sent: Sent, auditor: Auditor, finding: Finding, fetch: FetchAsync) -> None:
        """What was found is in `finding` afterwards. Raises one of BROKEN, or TooLong."""
        _tap(self.reply, sent, auditor, finding, fetch)
        body = bytearray()
        try:
            async with aclosing(_parts(self.reply)) as parts:
                async for part in parts:
                    body += part
                    if len(body) > self._limit:
                        raise TooLong
        finally:
            await self.reply.aclose()
        self.body = bytes(body)

    def response(self, *, strip: bool) -> Response:
        body = self.body
        if strip:
            body = _stripped(body) if is_stream(self.reply, asked=False) else without(body)
        response = Response(body, self.reply.status_code)
        kept = [(name, value) for name, value in response.raw_headers if name == b"content-length"]
        response.raw_headers = [*to_application(self.reply.headers.raw, resized=True), *kept]
        return response


class Passing(StreamingResponse):
    """A reply that goes out as it comes. One that breaks off is broken off: without its last bytes no client takes it
    for whole."""

    def __init__(self, reply: httpx.Response, parts: AsyncIterator[bytes], *, resized: bool) -> None:
        super().__init__(parts, reply.status_code)
        self._reply = reply
        self.raw_headers = to_application(reply.headers.raw, resized=resized)

    async def stream_response(self, send: Send) -> None:
        with suppress(*BROKEN, TooLong):  # the server closes the connection of a response without an end
            await super().stream_response(send)

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            await self._reply.aclose()


def raw(reply: httpx.Response) -> Passing:
    """Of what nothing is to be found: as it came over the wire."""
    return Passing(reply, reply.aiter_raw(), resized=False)


def watched(
    reply: httpx.Response,
    sent: Sent,
    auditor: Auditor,
    finding: Finding,
    fetch: FetchAsync,
    *,
    strip: bool,
    limit: int,
    fails: bool,
) -> Passing:
    """A stream whose answer is checked in the background. `fails`: an answer that cannot be stored does not end."""
    _tap(reply, sent, auditor, finding, fetch)

    async def parts() -> AsyncIterator[bytes]:
        stripper, size, whole = Stripper() if strip else None, 0, True
        try:
            async with aclosing(_parts(reply)) as came:
                async for part in came:
                    size += len(part)
                    if size > limit:
                        raise TooLong
                    if finding.unstored and fails:
                        yield _error("not_stored", "the answer could not be stored", whole)
                        return
                    going = part if stripper is None else stripper.feed(part)
                    if going:
                        whole = going.endswith(ENDS)
                        yield going
            if stripper is not None and (rest := stripper.flush()):
                yield rest
        except (*BROKEN, TooLong) as error:
            finding.worsen("unchecked", "too_long" if isinstance(error, TooLong) else "broken_off")
            yield _error("broken_off", "the upstream's stream did not come to its end", whole)
        finally:
            auditor.over(finding)

    return Passing(reply, parts(), resized=strip)


def _tap(reply: httpx.Response, sent: Sent, auditor: Auditor, finding: Finding, fetch: FetchAsync) -> None:
    tap = Tap(reply, sent, auditor, streams=is_stream(reply, asked=False), parse=lambda _: finding, fetch=fetch)
    tap.owner = finding


def _parts(reply: httpx.Response) -> AsyncGenerator[bytes]:
    """Which a tap closes too, when nobody reads on."""
    return cast("AsyncGenerator[bytes]", reply.aiter_bytes())


def _stripped(body: bytes) -> bytes:
    stripper = Stripper()
    return stripper.feed(body) + stripper.flush()


def _error(code: str, message: str, whole: bool) -> bytes:
    """An event that the SDKs of OpenAI and Anthropic raise for. A part of an event may stand before it."""
    start = b"" if whole else b"\n\n"
    return start + b"event: error\ndata: " + body_of(BILLED, code, message, anthropic=True) + b"\n\n"
