"""The SDK's streams, with the proofs of what they brought."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from openai import AsyncStream, Stream

from .exchange import typed
from .fields import Fields
from .foreign import guarded
from .tap import tap_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from toploc.protocol import ToplocProofs

T = TypeVar("T")


class _Proven(Generic[T]):
    """What both streams share."""

    response: Any
    _fields: Fields | None = None

    @property
    def toploc_proofs(self) -> ToplocProofs | None:
        """Of all choices that have ended so far; the whole answer's after the last event."""
        return None if self._fields is None else self._fields.merged

    def give_proofs(self, proofs: ToplocProofs) -> None:
        """Those of the whole answer, which did not come with its events."""
        self._fields = Fields()
        self._fields.add(proofs, ())

    def _note(self, event: Any) -> None:
        """Has an event's field typed. Of thousands of events in a stream all but one are mere text."""
        # Not getattr: where there is none, pydantic takes as long to say so as the SDK for half an event.
        inside = getattr(event, "__dict__", {})
        holder = inside.get("response") or event
        if (field := typed(holder)) is None:
            return
        if self._fields is None:
            self._fields = Fields()
        choices = inside.get("choices")
        if isinstance(choices, list) and len(self._fields) < 10_000:
            ended = [c.index for c in choices if getattr(c, "finish_reason", None) is not None]
            self._fields.add(field, [index for index in ended if type(index) is int and index >= 0])
        else:
            self._fields.add(field, ())

    @contextmanager
    def _held(self) -> Iterator[None]:
        """While it is read: the SDK's errors about what is none of its events become this client's."""
        tap = tap_of(self.response)
        if tap is None:
            yield
            return
        tap.owner = self
        with guarded(self):
            yield


class ProvenStream(_Proven[T], Stream[T]):
    """The answer is checked before its last event. A stream that is left after its proofs came is checked in the
    background; one that is left earlier is counted as unchecked. See `tap.py`."""

    def close(self) -> None:
        super().close()
        self._iterator.close()  # type: ignore[attr-defined]

    def __stream__(self) -> Iterator[T]:
        with self._held():
            for event in super().__stream__():
                if getattr(event, "__pydantic_extra__", None) or "response" in getattr(event, "__dict__", ()):
                    self._note(event)
                yield event


class AsyncProvenStream(_Proven[T], AsyncStream[T]):
    """See `ProvenStream`."""

    async def close(self) -> None:
        await super().close()
        await self._iterator.aclose()  # type: ignore[attr-defined]

    async def __stream__(self) -> AsyncIterator[T]:
        with self._held():
            async for event in super().__stream__():
                if getattr(event, "__pydantic_extra__", None) or "response" in getattr(event, "__dict__", ()):
                    self._note(event)
                yield event
