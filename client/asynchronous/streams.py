"""The SDK's streams, with the proofs of what they brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai import AsyncStream

from ..streams import Proven, T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AsyncProvenStream(Proven[T], AsyncStream[T]):
    """The answer is checked before its last event. A stream that is left after its proofs came is checked in the
    background; one that is left earlier is counted as unchecked. See `tap.py`."""

    async def close(self) -> None:
        await super().close()
        await self._iterator.aclose()  # type: ignore[attr-defined]

    async def __stream__(self) -> AsyncIterator[T]:
        with self.held():
            async for event in super().__stream__():
                if getattr(event, "__pydantic_extra__", None) or "response" in getattr(event, "__dict__", ()):
                    self.note(event)
                yield event
