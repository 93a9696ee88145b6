"""What the SDK's `.stream()` helpers, synchronous or not, need to have the proofs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from toploc.protocol import FIELD_NAME

from .exchange import typed
from .foreign import guarded
from .tap import tap_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from toploc.protocol import ToplocProofs


def proofs_of(stream: Any) -> ToplocProofs | None:
    """Of the stream that a helper reads."""
    proofs: ToplocProofs | None = stream._raw_stream.toploc_proofs
    return proofs


def with_proofs(stream: Any, final: Any) -> Any:
    """A helper's final object, with the proofs of its stream."""
    if stream.toploc_proofs is not None:
        extra = final.__pydantic_extra__
        extra[FIELD_NAME] = stream.toploc_proofs
    typed(final)
    return final


def reading(stream: Any) -> AbstractContextManager[None]:
    """While a helper reads: the SDK's errors about what is none of its events become this client's."""
    return guarded(stream) if tap_of(stream._raw_stream.response) else nullcontext()


def become(value: Any, kind: type[Any]) -> Any:
    """Gives an object another class, since the SDK's managers make their streams by name. The two may have one base
    each, the class that it had."""
    value.__class__ = kind
    if hasattr(kind, "__stream__"):  # the SDK has begun to read by the class before
        value._iterator = value.__stream__()
    return value
