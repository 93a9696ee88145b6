"""What the SDK's streams, synchronous or not, know of the proofs of what they brought."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .exchange import typed
from .fields import Fields
from .foreign import guarded
from .tap import tap_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc.protocol import ToplocProofs

T = TypeVar("T")


class Proven(Generic[T]):
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

    def note(self, event: Any) -> None:
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
    def held(self) -> Iterator[None]:
        """While it is read: the SDK's errors about what is none of its events become this client's."""
        tap = tap_of(self.response)
        if tap is None:
            yield
            return
        tap.owner = self
        with guarded(self):
            yield
