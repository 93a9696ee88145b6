"""The SDK's `.stream()` helpers, whose streams and final objects have the proofs too."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from openai.lib.streaming.chat import (
    AsyncChatCompletionStream,
    AsyncChatCompletionStreamManager,
    ChatCompletionStream,
    ChatCompletionStreamManager,
)
from openai.lib.streaming.responses import (
    AsyncResponseStream,
    AsyncResponseStreamManager,
    ResponseStream,
    ResponseStreamManager,
)
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.resources.responses import AsyncResponses, Responses

from toploc.protocol import FIELD_NAME

from .exchange import typed
from .foreign import guarded
from .tap import tap_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from toploc.protocol import ToplocProofs


def _proofs(stream: Any) -> ToplocProofs | None:
    """Of the stream that a helper reads."""
    proofs: ToplocProofs | None = stream._raw_stream.toploc_proofs
    return proofs


def _with_proofs(stream: Any, final: Any) -> Any:
    if stream.toploc_proofs is not None:
        extra = final.__pydantic_extra__
        extra[FIELD_NAME] = stream.toploc_proofs
    typed(final)
    return final


def _events(stream: Any, base: Any) -> Iterator[Any]:
    with guarded(stream) if tap_of(stream._raw_stream.response) else nullcontext():
        yield from base.__stream__(stream)


async def _events_async(stream: Any, base: Any) -> AsyncIterator[Any]:
    with guarded(stream) if tap_of(stream._raw_stream.response) else nullcontext():
        async for event in base.__stream__(stream):
            yield event


# One base each: an object can only become one of a class that has its own as the only base.


class _ChatStream(ChatCompletionStream[Any]):
    toploc_proofs = property(_proofs)

    def __stream__(self) -> Iterator[Any]:
        return _events(self, ChatCompletionStream)

    def get_final_completion(self) -> Any:
        return _with_proofs(self, super().get_final_completion())


class _AsyncChatStream(AsyncChatCompletionStream[Any]):
    toploc_proofs = property(_proofs)

    def __stream__(self) -> AsyncIterator[Any]:
        return _events_async(self, AsyncChatCompletionStream)

    async def get_final_completion(self) -> Any:
        return _with_proofs(self, await super().get_final_completion())


class _ResponseStream(ResponseStream[Any]):
    toploc_proofs = property(_proofs)

    def __stream__(self) -> Iterator[Any]:
        return _events(self, ResponseStream)

    def get_final_response(self) -> Any:
        return _with_proofs(self, super().get_final_response())


class _AsyncResponseStream(AsyncResponseStream[Any]):
    toploc_proofs = property(_proofs)

    def __stream__(self) -> AsyncIterator[Any]:
        return _events_async(self, AsyncResponseStream)

    async def get_final_response(self) -> Any:
        return _with_proofs(self, await super().get_final_response())


# The SDK's managers make their streams by name, so what they made is given the class with the proofs.


class _ChatManager(ChatCompletionStreamManager[Any]):
    def __enter__(self) -> Any:
        return _become(super().__enter__(), _ChatStream)


class _AsyncChatManager(AsyncChatCompletionStreamManager[Any]):
    async def __aenter__(self) -> Any:
        return _become(await super().__aenter__(), _AsyncChatStream)


class _ResponseManager(ResponseStreamManager[Any]):
    def __enter__(self) -> Any:
        return _become(super().__enter__(), _ResponseStream)


class _AsyncResponseManager(AsyncResponseStreamManager[Any]):
    async def __aenter__(self) -> Any:
        return _become(await super().__aenter__(), _AsyncResponseStream)


class ProvenCompletions(Completions):
    def stream(self, **options: Any) -> Any:
        return _become(super().stream(**options), _ChatManager)


class AsyncProvenCompletions(AsyncCompletions):
    def stream(self, **options: Any) -> Any:
        return _become(super().stream(**options), _AsyncChatManager)


class ProvenResponses(Responses):
    def stream(self, **options: Any) -> Any:
        return _become(super().stream(**options), _ResponseManager)


class AsyncProvenResponses(AsyncResponses):
    def stream(self, **options: Any) -> Any:
        return _become(super().stream(**options), _AsyncResponseManager)


def _become(value: Any, kind: type[Any]) -> Any:
    value.__class__ = kind
    if hasattr(kind, "__stream__"):  # the SDK has begun to read by the class before
        value._iterator = value.__stream__()
    return value
