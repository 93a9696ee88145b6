"""The field of an answer that came without it, from its server, which keeps that of its last answers.

`GET /v1/toploc/proofs/{id}` (docs/protocol.md) can say nothing that the response could not have said. What it gives is
put into the response, and checked as if it had come with it.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openai._constants import RAW_RESPONSE_HEADER

from toploc.errors import ToplocError
from toploc.foreign import printable
from toploc.protocol import FIELD_NAME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openai._types import RequestOptions

    Fetch = Callable[[str], "Kept"]
    FetchAsync = Callable[[str], Awaitable["Kept"]]

IDS: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""Ids that are asked for. With dots and slashes a server would choose what is asked with its client's key."""

MAX_BYTES: Final = 64 * 2**20
"""Of a reply, unpacked. Stops a server that fills the memory of its client."""

SECONDS: Final = 10.0
"""For a reply, and for each wait within it. Stops a server that sends it a byte at a time."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a server says when it is asked: the field as it came, or why there is none."""

    field: Any = None
    problem: str = ""


def path_of(response_id: str) -> str:
    if not IDS.fullmatch(response_id):
        raise ToplocError("its id is none that this client asks for")
    return f"/toploc/proofs/{response_id}"


def options() -> RequestOptions:
    """The SDK hands out what is not read yet where it finds this header."""
    return {"headers": {RAW_RESPONSE_HEADER: "stream"}, "follow_redirects": False, "timeout": SECONDS}


class Reading:
    """A reply that comes in parts."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._until: float | None = None

    def add(self, part: bytes) -> None:
        """Raises ToplocError beyond a limit."""
        self._until = self._until or time.monotonic() + SECONDS
        self._body += part
        if len(self._body) > MAX_BYTES:
            raise ToplocError(f"the reply is longer than {MAX_BYTES:,} bytes")
        if time.monotonic() > self._until:
            raise ToplocError(f"the reply took longer than {SECONDS:g} seconds")

    def kept(self, response_id: str) -> Kept:
        """Raises ToplocError, ValueError or RecursionError for what is no such reply."""
        reply = json.loads(self._body)
        if not isinstance(reply, dict) or reply.get("id") != response_id or FIELD_NAME not in reply:
            raise ToplocError("the reply is none with this answer's id and proofs")
        return Kept(reply[FIELD_NAME])


def none_because(error: Exception) -> Kept:
    return Kept(problem=printable(f"{type(error).__name__}: {error}"[:300]))
