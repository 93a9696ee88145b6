"""Server-sent events as bytes: cutting a stream into events, and reading or extending an event's JSON."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Final

END: Final = re.compile(rb"\r?\n\r?\n")
"""vLLM ends lines with LF; CRLF is as valid, and an unknown end would hold a whole stream back."""


class EventSplitter:
    """Cuts a byte stream into events, however it was divided into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Whole events so far, each with its blank line; the rest waits for more."""
        # One whole event, as servers send them; the search below takes ten times as long.
        if not self._rest and b"\r" not in data and data.find(b"\n\n") == len(data) - 2 >= 0:
            return [data]
        stream = self._rest + data
        borders = [0, *(end.end() for end in END.finditer(stream))]
        self._rest = stream[borders[-1] :]
        return [stream[start:end] for start, end in pairwise(borders)]

    @property
    def waiting(self) -> bool:
        """Whether a part of an event waits for its end."""
        return bool(self._rest)

    def flush(self) -> bytes:
        """What is left at the end of the stream."""
        rest, self._rest = self._rest, b""
        return rest


def event_json(event: bytes) -> bytes | None:
    """The JSON object of an event's `data:` line, or None if it has no such line or other data (`[DONE]`)."""
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            data = line.removeprefix(b"data:").strip()
            return data if data.startswith(b"{") else None
    return None


def add_field(document: bytes, name: str, value: bytes) -> bytes:
    """The JSON object `document` with one more field at its end; all its other bytes stay as they are, so that
    nothing the server said is reformatted on the way.

    Raises:
        ValueError: `document` does not begin and end like an object.
    """
    body = document.strip()
    if len(body) < 2 or not (body.startswith(b"{") and body.endswith(b"}")):
        raise ValueError("not a JSON object")
    at = len(document[: document.rindex(b"}")].rstrip())
    separator = b"" if document[:at].endswith(b"{") else b","
    return document[:at] + separator + b'"' + name.encode() + b'":' + value + document[at:]


def add_field_within(document: bytes, key: str, name: str, value: bytes) -> bytes:
    """Like `add_field`, in the object that is the value of `key`.

    Raises:
        ValueError: `document` has no object under that key.
    """
    text = document.decode()
    start, end = _field(text, key)
    return text[:start].encode() + add_field(text[start:end].encode(), name, value) + text[end:].encode()


def _field(text: str, key: str) -> tuple[int, int]:
    """Where the value of `key` begins and ends in a JSON object: its own field, not one of an object inside it.

    Raises:
        ValueError: there is none.
    """
    decoder = json.JSONDecoder()
    at = _after(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, at)
        start = _after(text, at, ":")
        _, end = decoder.raw_decode(text, start)
        if name == key:
            return start, end
        at = _after(text, end, ",")


def _after(text: str, at: int, sign: str) -> int:
    """Position of what follows `sign`, with space before and after it.

    Raises:
        ValueError: something else is there.
    """
    match = re.compile(rf"[ \t\n\r]*{re.escape(sign)}[ \t\n\r]*").match(text, at)
    if match is None:
        raise ValueError(f"no {sign} where one was expected")
    return match.end()
