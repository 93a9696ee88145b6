"""The SDK's `.stream()` helpers, whose streams and final objects have the proofs too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openai.lib.streaming.chat import AsyncChatCompletionStream, AsyncChatCompletionStreamManager
from openai.lib.streaming.responses import AsyncResponseStream, AsyncResponseStreamManager
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses

from ..helpers import become, proofs_of, reading, with_proofs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def _events(stream: Any, base: Any) -> AsyncIterator[Any]:
    with reading(stream):
        async for event in base.__stream__(stream):
            yield event


class _AsyncChatStream(AsyncChatCompletionStream[Any]):
    toploc_proofs = property(proofs_of)

    def __stream__(self) -> AsyncIterator[Any]:
        return _events(self, AsyncChatCompletionStream)

    async def get_final_completion(self) -> Any:
        return with_proofs(self, await super().get_final_completion())


class _AsyncResponseStream(AsyncResponseStream[Any]):
    toploc_proofs = property(proofs_of)

    def __stream__(self) -> AsyncIterator[Any]:
        return _events(self, AsyncResponseStream)

    async def get_final_response(self) -> Any:
        return with_proofs(self, await super().get_final_response())


class _AsyncChatManager(AsyncChatCompletionStreamManager[Any]):
    async def __aenter__(self) -> Any:
        return become(await super().__aenter__(), _AsyncChatStream)


class _AsyncResponseManager(AsyncResponseStreamManager[Any]):
    async def __aenter__(self) -> Any:
        return become(await super().__aenter__(), _AsyncResponseStream)


class AsyncProvenCompletions(AsyncCompletions):
    def stream(self, **options: Any) -> Any:
        return become(super().stream(**options), _AsyncChatManager)


class AsyncProvenResponses(AsyncResponses):
    def stream(self, **options: Any) -> Any:
        return become(super().stream(**options), _AsyncResponseManager)
