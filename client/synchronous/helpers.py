# Made from client/asynchronous/helpers.py by scripts/synchronous.py: change that one.
"""The SDK's `.stream()` helpers, whose streams and final objects have the proofs too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openai.lib.streaming.chat import ChatCompletionStream, ChatCompletionStreamManager
from openai.lib.streaming.responses import ResponseStream, ResponseStreamManager
from openai.resources.chat.completions import Completions
from openai.resources.responses import Responses

from ..helpers import become, proofs_of, reading, with_proofs

if TYPE_CHECKING:
    from collections.abc import Iterator


def _events(stream: Any, base: Any) -> Iterator[Any]:
    with reading(stream):
        for event in base.__stream__(stream):
            yield event


class _ChatStream(ChatCompletionStream[Any]):
    toploc_proofs = property(proofs_of)

    def __stream__(self) -> Iterator[Any]:
        return _events(self, ChatCompletionStream)

    def get_final_completion(self) -> Any:
        return with_proofs(self, super().get_final_completion())


class _ResponseStream(ResponseStream[Any]):
    toploc_proofs = property(proofs_of)

    def __stream__(self) -> Iterator[Any]:
        return _events(self, ResponseStream)

    def get_final_response(self) -> Any:
        return with_proofs(self, super().get_final_response())


class _ChatManager(ChatCompletionStreamManager[Any]):
    def __enter__(self) -> Any:
        return become(super().__enter__(), _ChatStream)


class _ResponseManager(ResponseStreamManager[Any]):
    def __enter__(self) -> Any:
        return become(super().__enter__(), _ResponseStream)


class ProvenCompletions(Completions):
    def stream(self, **options: Any) -> Any:
        return become(super().stream(**options), _ChatManager)


class ProvenResponses(Responses):
    def stream(self, **options: Any) -> Any:
        return become(super().stream(**options), _ResponseManager)
