"""`toploc_proofs` taken out of what an application gets; all other bytes stay as they came."""

from __future__ import annotations

import json
import re
from typing import Final

from toploc.protocol import FIELD_NAME

MARK: Final = f'"{FIELD_NAME}"'.encode()
END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
"""Of an event."""

WITHIN: Final = "response"
"""What events of /v1/responses have the whole response under."""


def without(document: bytes) -> bytes:
    """A JSON object without the field, at its top or within `response`; what is no such object as it is."""
    if MARK not in document:
        return document
    try:
        text = document.decode()
        parts = _members(text, 0)
        for name, start, _ in parts:
            if name == WITHIN and text[start] == "{":
                parts = [*parts, *_members(text, start)]
    except (ValueError, IndexError, RecursionError):
        return document
    for found in sorted((part for part in parts if part[0] == FIELD_NAME), key=lambda part: -part[1]):
        text = _cut(text, found[1], found[2])
    return text.encode()


class Stripper:
    """Takes the field out of a stream's events; each is held back until it is whole."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._looked = 0

    def feed(self, part: bytes) -> bytes:
        self._rest += part
        ready, start = [], 0
        while (end := END.search(self._rest, max(start, self._looked))) is not None:
            ready.append(_event(bytes(self._rest[start : end.end()])))
            start = self._looked = end.end()
        del self._rest[:start]
        self._looked = max(len(self._rest) - 3, 0)
        return b"".join(ready)

    def flush(self) -> bytes:
        rest, self._rest = bytes(self._rest), bytearray()
        return _event(rest)


def _event(event: bytes) -> bytes:
    if MARK not in event:
        return event
    lines = event.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith(b"data:"):
            lines[number] = b"data:" + without(line[5:])
    return b"".join(lines)


def _members(text: str, start: int) -> list[tuple[str, int, int]]:
    """Name, and where the value begins and ends, of each member of the object that begins at `start`.

    Raises ValueError or IndexError for what is none.
    """
    decoder, blank = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")

    def skip(at: int) -> int:
        found = blank.match(text, at)
        return at if found is None else found.end()

    at, members = skip(start), list[tuple[str, int, int]]()
    if text[at] != "{":
        raise ValueError
    at = skip(at + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = skip(at)
        if text[at] != ":" or not isinstance(name, str):
            raise ValueError
        begin = skip(at + 1)
        _, end = decoder.raw_decode(text, begin)
        members.append((name, begin, end))
        at = skip(end)
        if text[at] == ",":
            at = skip(at + 1)
    return members


def _cut(text: str, start: int, end: int) -> str:
    """Without the member whose value is there, and without one of the commas beside it."""
    begin = text.rindex(MARK.decode(), 0, start)
    before, after = text[:begin].rstrip(), text[end:]
    if before.endswith(","):
        return before[:-1] + after
    return text[:begin] + after.lstrip().removeprefix(",").lstrip()
