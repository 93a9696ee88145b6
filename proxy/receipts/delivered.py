"""What a stream has said, for the receipts that its events carry."""

from __future__ import annotations

from typing import Any, Final

import orjson

from toploc.evidence.assembly import UNREADABLE, Assembly

from ..asgi.sse import event_json

FOLD: Final = 256
"""Messages that are kept before they are read: bounds the memory of a stream to what it says and some 64 KB."""


class Delivered:
    """Puts events together as clients and verifiers do. A message costs an append as it passes; it is read with many
    others, or when a choice ends.

    `size`: bytes that have passed.
    """

    def __init__(self) -> None:
        self.size = 0
        self._kept: list[bytes] = []
        self._rest = b""
        self._assembly: Assembly | None = Assembly()

    def keep(self, data: bytes) -> None:
        if self._assembly is not None:
            self.size += len(data)
            self._kept.append(data)
            if len(self._kept) >= FOLD:
                self._fold()

    def response(self, choice: int | None) -> dict[str, Any] | None:
        """What was said so far, of a choice or of them all; None if an event cannot be read, or none says anything."""
        self._fold()
        try:
            return None if self._assembly is None else self._assembly.response(choice)
        except UNREADABLE:
            return None

    def _fold(self) -> None:
        data, self._kept = (self._rest + b"".join(self._kept)).replace(b"\r\n", b"\n"), []
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            document = event[6:] if event.startswith(b"data: {") else event_json(event)
            if document is not None and self._assembly is not None:
                try:
                    self._assembly.add(orjson.loads(document))
                except UNREADABLE:
                    self._assembly = None
