# Made from client/asynchronous/streams.py by scripts/synchronous.py: change that one.
"""The SDK's streams, with the proofs of what they brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai import Stream

from ..streams import Proven, T

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProvenStream(Proven[T], Stream[T]):
    """The answer is checked before its last event. A stream that is left after its proofs came is checked in the
    background; one that is left earlier is counted as unchecked. See `tap.py`."""

    def close(self) -> None:
        super().close()
        self._iterator.close()  # type: ignore[attr-defined]

    def __stream__(self) -> Iterator[T]:
        with self.held():
            for event in super().__stream__():
                if getattr(event, "__pydantic_extra__", None) or "response" in getattr(event, "__dict__", ()):
                    self.note(event)
                yield event
