"""Stands between a reply's bytes and whoever reads them: the SDK's streams and parsers, or the application itself.

Every way to read a reply of httpx goes through its `iter_bytes`, `aiter_bytes`, or the raw ones below them. So what is
decided here holds for `parse()`, `json()`, `text()`, `read()`, `iter_lines()` and streams alike.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from openai._streaming import SSEDecoder

from .answer import Answer
from .assembler import MAX_CHARACTERS, Assembler, whole
from .exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .checker import Checker
    from .routes import Sent

ATTRIBUTE: Final = "_toploc_tap"
"""Of a reply: its tap."""

LEFT: Final = (GeneratorExit, asyncio.CancelledError)
"""What is raised in a generator that nobody reads any more."""


class BaseTap:
    """What is read of one reply is checked before its last part is handed on.

    1. A part that ends a choice without its proofs is not handed on where proofs are required. Where its server may be
       asked for them, it waits for the end with all that follow it, since they are kept once the answer is over.
    2. The part with the event that ends the stream is handed on after the check. So is the end of what is no stream.
    3. What is left after its proofs came is checked in the background.
    4. What is left before, or read below `iter_bytes`, is counted as unchecked, and the log says so.
    """

    def __init__(
        self,
        response: Any,
        sent: Sent,
        checker: Checker,
        *,
        finish: Callable[[Answer], Any],
        streams: bool,
        parse: Callable[[Exchange], Any],
    ) -> None:
        self.owner: Any = None
        """What the application holds: the SDK's stream, once there is one."""
        self._response, self._sent, self._checker, self._parse = response, sent, checker, parse
        self._finish = finish
        # Asked of the options with each part, they would cost as much as all else that is done with it.
        self._required, self._fetches = checker.options.requires_proofs, checker.options.fetches_proofs
        self._late = bytearray()
        self._parts = bytearray()
        self._events = _Events() if streams else None
        self._assembler = Assembler(sent)
        self._over = self._inside = self._read = self._told = self._kept = False
        self._install(response)
        setattr(response, ATTRIBUTE, self)

    def _install(self, response: Any) -> None:
        """Takes the place of what reads the reply."""
        raise NotImplementedError

    def _refuse(self) -> None:
        """Raises MissingProofs for bytes that are read as they came over the wire, compressed perhaps."""
        if not self._inside and not self._over:
            self._over = True
            self._checker.unchecked(self._response, "its raw bytes were read, which are not checked; use iter_bytes")

    def _take(self, part: bytes) -> bool:
        """Whether the answer is whole with this part. Raises MissingProofs."""
        if self._events is None:
            self._parts += part
            return False
        for data in self._events.feed(part):
            self._assembler.add(data)
        if not self._kept and self._assembler.response_id:
            self._kept = True
            self._checker.keep(self._assembler.response_id, self._sent)
        if self._over:
            return bool(self._assembler.problems) and self._again()
        if self._waits:
            return False
        if self._required and self._assembler.unproven and not self._assembler.ended:
            return self._ends()
        return self._assembler.ended and self._ends()

    @property
    def _waits(self) -> bool:
        """Whether what has come is kept until the end. Not of a stream that says what is wrong with it, nor of one
        without end."""
        return (
            self._fetches
            and self._assembler.unproven
            and not (self._over or self._assembler.fields.count or self._assembler.problems)
            and len(self._late) <= MAX_CHARACTERS
        )

    def _ready(self, part: bytes) -> bytes:
        """What may be handed on of all that has come."""
        if self._waits:
            self._late += part
            return b""
        if not self._late:
            return part
        ready = bytes(self._late + part)
        self._late.clear()
        return ready

    def _ends(self) -> bool:
        """Whether this is the first time that it ends."""
        over, self._over = self._over, True
        if not over:
            self._assembler.end()
        return not over

    def _again(self) -> bool:
        """Whether something came after the end, for the first time."""
        if self._told or not any(check.reason == "after_end" for check in self._assembler.problems):
            return False
        self._told = True
        return True

    def _left(self) -> None:
        if self._over or not (self._read or self._parts or not self._assembler.empty):
            return
        self._over = True
        if self._events is not None and self._assembler.settled:
            self._checker.leave(self._answer())
        else:
            self._checker.unchecked(self._held(None), "it was left before its proofs came", raises=False)

    def _answer(self) -> Answer:
        if self._events is None:
            exchange = Exchange.read(self._sent.body, bytes(self._parts))
            return Answer(exchange, self._held(self._parse(exchange)), exchange.proofs, self._sent)
        response = self._assembler.response()
        fields = self._assembler.fields
        return Answer(
            None if response is None else Exchange(self._sent.body, whole(response)),
            self._held(None),
            None if fields.junk is not None or response is None else fields.merged,
            self._sent,
            seen=tuple(self._assembler.problems),
            whole=self._assembler.whole,
        )

    def _held(self, value: Any) -> Any:
        if self.owner is not None:
            return self.owner
        return self._response if value is None else value


class _Events:
    """The data of a stream's events out of parts of any size; lines are read as the SDK reads them."""

    def __init__(self) -> None:
        self._decoder = SSEDecoder()
        self._rest: list[bytes] = []
        self._after_cr = False

    def feed(self, part: bytes) -> Iterator[str]:
        """Raises nothing: a line that is no UTF-8 is one that says something."""
        if self._after_cr and part.startswith(b"\n"):  # the other half of the end of the line before
            part = part[1:]
        if part:
            self._after_cr = part.endswith(b"\r")
        for line in part.splitlines(keepends=True):
            self._rest.append(line)
            if not line.endswith((b"\n", b"\r")):
                continue
            text = b"".join(self._rest).rstrip(b"\r\n").decode(errors="replace")
            self._rest.clear()
            event = self._decoder.decode(text)
            if event is not None and event.data:
                yield event.data


def tap_of(response: Any) -> BaseTap | None:
    tap = getattr(response, ATTRIBUTE, None)
    return tap if isinstance(tap, BaseTap) else None


def is_stream(response: Any, asked: bool) -> bool:
    """Whether a reply has events; also where they were not asked for in the SDK's way but by `extra_body`."""
    return asked or str(response.headers.get("content-type", "")).startswith("text/event-stream")
