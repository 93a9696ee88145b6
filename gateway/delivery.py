"""Between an upstream's reply and the application.

Inline, an answer is held until it was checked, streams too: nothing of one that is refused goes out. In the background
a stream goes out as it comes; its last event waits until the answer is in the store. What is read is looked at when it
is whole, since a look at each event as it passes would cost as much as passing it.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
from starlette.responses import Response, StreamingResponse
from toploc_client.asynchronous.tap import AsyncTap
from toploc_client.tap import is_stream

from .errors import BILLED, body_of
from .field import MARK, Stripper, without
from .headers import to_application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Send
    from toploc_client.kept import FetchAsync
    from toploc_client.routes import Sent

    from .auditor import Auditor
    from .finding import Finding

BROKEN: Final = (httpx.TransportError, httpx.StreamError, TimeoutError)
"""Of a reply that does not come to its end."""

ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")
"""Of events."""

LAST: Final = re.compile(rb"^(?:data: ?\[DONE\]|event: ?(?:message_stop|response\.(?:completed|incomplete)))", re.M)
"""Begins the last event of a stream, in a line that no text of an answer can make. One that comes in two parts is not
known for the last before the reply ends."""

SLICE: Final = 64 * 2**10
"""Bytes that are looked at in one go. Bounds for how long other requests wait."""


class TooLong(Exception):
    """A reply is longer than what is held of one, or of all; never leaves this folder."""


class Budget:
    """Bytes of all answers that are held at once. Stops upstreams that fill the memory together."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, size: int) -> None:
        """Raises TooLong; what was asked for is taken all the same, and to be given back."""
        self._left -= size
        if self._left < 0:
            raise TooLong

    def give_back(self, size: int) -> None:
        self._left += size


@dataclass(frozen=True, slots=True)
class Exam:
    """What an answer is held against, and by whom."""

    sent: Sent
    auditor: Auditor
    finding: Finding
    fetch: FetchAsync
    limit: int
    budget: Budget
    strip: bool
    fails: bool
    """Whether an answer that cannot be stored is refused."""

    async def of(self, reply: httpx.Response, body: bytes) -> None:
        """Has the client's tap read what came, as if it came now. What was found is in `finding`."""
        read = httpx.Response(reply.status_code, headers=reply.headers, stream=_Slices(body))
        streams = is_stream(reply, asked=False)
        tap = AsyncTap(
            read,
            self.sent,
            self.auditor,
            finish=lambda answer: self.auditor.finish(answer, self.fetch),
            streams=streams,
            parse=lambda _: self.finding,
        )
        tap.owner = self.finding
        async for _ in read.aiter_bytes():
            pass


async def held(reply: httpx.Response, exam: Exam) -> Response:
    """A reply that is read whole, and looked at, before anything of it goes out. Raises one of BROKEN, or TooLong."""
    parts, size = list[bytes](), 0
    try:
        async for part in reply.aiter_raw():
            parts.append(part)
            size += len(part)
            exam.budget.take(len(part))
            if size > exam.limit:
                raise TooLong
        body = b"".join(parts)
        await exam.of(reply, body)
    finally:
        exam.budget.give_back(size)
        await reply.aclose()
    if exam.strip:
        body = _stripped(body) if is_stream(reply, asked=False) else without(body)
    response = Response(body, reply.status_code)
    length = [(name, value) for name, value in response.raw_headers if name == b"content-length"]
    response.raw_headers = [*to_application(reply.headers.raw, resized=True), *length]
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


def watched(reply: httpx.Response, exam: Exam) -> Passing:
    """A stream that is looked at when it is over, if it was drawn. Of others it is only known whether proofs came."""
    return Passing(reply, _Watch(reply, exam).parts(), resized=exam.strip)


class _Watch:
    def __init__(self, reply: httpx.Response, exam: Exam) -> None:
        self._reply, self._exam = reply, exam
        self._stripper = Stripper() if exam.strip else None
        self._came, self._held = list[bytes](), 0
        self._reads = exam.finding.drawn or exam.sent.form == "response"  # of which the id is to be known
        self._proven = False
        """Whether something that looks like the field has come."""

    async def parts(self) -> AsyncIterator[bytes]:
        """What goes out. An `error` event ends a stream that broke off, or that could not be stored."""
        exam, size, examined, last = self._exam, 0, 0, b"\n\n"
        try:
            async for part in self._reply.aiter_raw():
                size += len(part)
                if size > exam.limit:
                    raise TooLong
                self._note(part)
                if not examined and (b"[DONE]" in part or b"event:" in part) and LAST.search(part):
                    examined = len(self._came) or 1
                    await self._examine()
                    if exam.finding.unstored and exam.fails:
                        break
                if going := part if self._stripper is None else self._stripper.feed(part):
                    last = going
                    yield going
            if not examined or any(b"data:" in part for part in self._came[examined:]):
                await self._examine()
            if exam.finding.unstored and exam.fails:
                yield _error("not_stored", "the answer could not be stored", last)
            elif self._stripper is not None and (rest := self._stripper.flush()):
                yield rest
        except (*BROKEN, TooLong) as error:
            exam.finding.worsen("unchecked", "too_long" if isinstance(error, TooLong) else "broken_off")
            yield _error("broken_off", "the upstream's stream did not come to its end", last)
        finally:
            self._over()

    def _note(self, part: bytes) -> None:
        self._proven = self._proven or MARK in part
        if self._reads:
            self._came.append(part)
            self._held += len(part)
            self._exam.budget.take(len(part))

    async def _examine(self) -> None:
        if self._reads:
            await self._exam.of(self._reply, b"".join(self._came))
        else:
            expected = self._exam.auditor.proofless or self._proven
            self._exam.finding.worsen(*(("unchecked", None) if expected else ("missing", "the server sent none")))

    def _over(self) -> None:
        """One that the application left after its proofs is looked at too, while nobody waits."""
        finding = self._exam.finding
        self._exam.budget.give_back(self._held)
        left = finding.verdict is None and self._reads and self._proven
        self._exam.auditor.over(finding, self._examine() if left else None)


class _Slices(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), SLICE):
            if start:
                await asyncio.sleep(0)
            yield self._body[start : start + SLICE]


def _stripped(body: bytes) -> bytes:
    stripper = Stripper()
    return stripper.feed(body) + stripper.flush()


def _error(code: str, message: str, last: bytes) -> bytes:
    """An event that the SDKs of OpenAI and Anthropic raise for. What went out last may be a part of an event."""
    start = b"" if last.endswith(ENDS) else b"\n\n"
    return start + b"event: error\ndata: " + body_of(BILLED, code, message, anthropic=True) + b"\n\n"
