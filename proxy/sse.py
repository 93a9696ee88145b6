"""Server-sent events as bytes: cutting a stream into events, and reading or extending an event's JSON."""

from __future__ import annotations

import json
import re

END = b"\n\n"


class EventSplitter:
    """Cuts a byte stream into events, however it was divided into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Whole events so far, each with its blank line; the rest waits for more."""
        *events, self._rest = (self._rest + data).split(END)
        return [event + END for event in events]

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
        ValueError: `document` does not end like an object.
    """
    body = document.rstrip()
    if not body.endswith(b"}"):
        raise ValueError("not a JSON object")
    inside = body[:-1].rstrip()
    separator = b"" if inside.endswith(b"{") else b","
    return inside + separator + b'"' + name.encode() + b'":' + value + b"}" + document[len(body) :]


def add_field_within(document: bytes, key: str, name: str, value: bytes) -> bytes:
    """Like `add_field`, in the object that is the value of `key`.

    Raises:
        ValueError: `document` has no object under that key.
    """
    text = document.decode()
    match = re.search(rf'"{re.escape(key)}"\s*:\s*', text)
    if match is None:
        raise ValueError(f"no field {key}")
    start = match.end()
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[:start].encode() + add_field(text[start:end].encode(), name, value) + text[end:].encode()
