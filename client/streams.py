"""The SDK's streams, with the proofs of what they brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from openai import AsyncStream, Stream
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from .assembler import Assembler
from .exchange import request_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from toploc.protocol import ToplocProofs

    from .checker import Checker

T = TypeVar("T")

TEXT: Final = (ChatCompletionChunk, Completion)
"""What has its proofs in a field of its own. Of thousands of such events in a stream all but one are mere text."""


class ProvenStream(Stream[T]):
    """`toploc_proofs` are those of all choices that have ended so far; the whole answer's after the last event.

    The answer is checked after the last event. A stream that is left after its proofs came is checked in the
    background; one that is left earlier has nothing to check.
    """

    toploc_proofs: ToplocProofs | None = None

    def close(self) -> None:
        super().close()
        self._iterator.close()  # type: ignore[attr-defined]

    def __stream__(self) -> Iterator[T]:
        checker: Checker = self._client._toploc  # type: ignore[attr-defined]
        assembler = _assembler(self.response, checker)
        lean = assembler is not None and not assembler.keep and self._cast_to in TEXT
        try:
            for event in super().__stream__():
                if not lean or event.__pydantic_extra__:  # type: ignore[attr-defined]
                    _add(self, assembler, event)
                yield event
        except GeneratorExit:
            if assembler is not None and assembler.settled:
                checker.leave(assembler.exchange(), self, assembler.proofs)
            raise
        if assembler is not None:
            checker.finish(assembler.exchange(), self, assembler.proofs)


class AsyncProvenStream(AsyncStream[T]):
    """See `ProvenStream`."""

    toploc_proofs: ToplocProofs | None = None

    async def close(self) -> None:
        await super().close()
        await self._iterator.aclose()  # type: ignore[attr-defined]

    async def __stream__(self) -> AsyncIterator[T]:
        checker: Checker = self._client._toploc  # type: ignore[attr-defined]
        assembler = _assembler(self.response, checker)
        lean = assembler is not None and not assembler.keep and self._cast_to in TEXT
        try:
            async for event in super().__stream__():
                if not lean or event.__pydantic_extra__:  # type: ignore[attr-defined]
                    _add(self, assembler, event)
                yield event
        except GeneratorExit:
            if assembler is not None and assembler.settled:
                checker.leave(assembler.exchange(), self, assembler.proofs)
            raise
        if assembler is not None:
            await checker.finish_async(assembler.exchange(), self, assembler.proofs)


def _assembler(response: Any, checker: Checker) -> Assembler | None:
    request = request_of(response)
    return None if request is None else Assembler(request, keep=checker.keeps_streams)


def _add(stream: Any, assembler: Assembler | None, event: Any) -> None:
    if assembler is not None:
        assembler.add(event)
        stream.toploc_proofs = assembler.proofs
