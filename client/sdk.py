"""The OpenAI SDK's clients, which check the answers they bring."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import openai
from openai._streaming import extract_stream_chunk_type

from .checker import Checker, Counts
from .exchange import Exchange, request_of, typed
from .helpers import AsyncProvenCompletions, AsyncProvenResponses, ProvenCompletions, ProvenResponses
from .options import NAMES, Options
from .streams import AsyncProvenStream, ProvenStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai.resources.chat import AsyncChat, Chat
    from openai.resources.responses import AsyncResponses, Responses

    from toploc.protocol import ToplocProofs

    from .judgement import Judgement


class _Checked:
    """What both clients share. `_process_response` is the SDK's one place that every reply passes, raw ones too."""

    _toploc: Checker

    def __init__(self, *, _toploc: Checker | None = None, **options: Any) -> None:
        own = _own(options)
        self._toploc = _toploc or Checker(Options(**own))
        super().__init__(**options)

    def copy(self, *, _extra_kwargs: Mapping[str, Any] = {}, **options: Any) -> Self:
        """The SDK's own, which takes our options too."""
        own = _own(options)
        checker = self._toploc.with_changes(own) if own else self._toploc
        sdk = cast("Any", super())
        return cast("Self", sdk.copy(_extra_kwargs={**_extra_kwargs, "_toploc": checker}, **options))

    with_options = cast("Any", copy)

    @property
    def audit_seed(self) -> str:
        """With which `audit_rate` chooses; keep it to show later which answers were to be checked."""
        return self._toploc.seed

    @property
    def checks(self) -> Counts:
        """How answers fared so far."""
        return self._toploc.counts

    def flush_checks(self, timeout: float | None = None) -> bool:
        """Waits for the checks in the background, up to `timeout` seconds; whether all are done."""
        return self._toploc.flush(timeout)

    def _exchange(self, request: Any, response: Any) -> Exchange:
        """Of what `verify` was given."""
        return self._toploc.memory.recall(request) if response is None else Exchange.of(request, response)

    def _prepare_reply(self, reply: dict[str, Any], stream_type: type[Any]) -> bytes | None:
        """Has streams and objects typed; the request's body if the route generates."""
        response, options = reply["response"], reply["options"]
        request = request_of(response)
        if request is None:
            return None
        if reply["stream"]:
            if reply["stream_cls"] is not None:
                reply["stream_cls"] = stream_type[extract_stream_chunk_type(reply["stream_cls"])]
            return request
        before, late = options.post_parser, not response.is_closed

        def parse(parsed: Any) -> Any:
            value = before(parsed) if callable(before) else parsed
            exchange = Exchange(request, response.content)
            proofs = typed(value)
            self._toploc.memory.remember(value, exchange)
            if late:  # with_streaming_response, whose body comes when it is asked for
                self._finish_late(exchange, value, proofs)
            return value

        # Not on the SDK's own object, whose post_parser a retry would wrap again.
        reply["options"] = options.model_copy(update={"post_parser": parse})
        return request

    def _finish_late(self, exchange: Exchange, value: Any, proofs: ToplocProofs | None) -> None:
        raise NotImplementedError

    def _whole(self, reply: Mapping[str, Any], request: bytes | None) -> Exchange | None:
        """The exchange of a reply that has been read, is no stream, and with which something is to be done."""
        if request is None or reply["stream"] or not reply["response"].is_closed or self._toploc.idle:
            return None
        return Exchange(request, reply["response"].content)


class OpenAI(_Checked, openai.OpenAI):
    """`openai.OpenAI` with the options of `toploc_client.Options`; `docs/client.md` explains them.

    Raises ToplocError for options that are none, and RejectedResponse or MissingProofs from any call that generates.
    """

    @cached_property
    def chat(self) -> Chat:
        chat = super().chat
        chat.__dict__["completions"] = ProvenCompletions(self)
        return chat

    @cached_property
    def responses(self) -> Responses:
        return ProvenResponses(self)

    def verify(self, request: Any, response: Any = None) -> Judgement:
        """What the verifiers say: of a request and its response, or of an object that this client gave alone.

        `request` is what the SDK was called with or the body itself. Raises ToplocError where there is no verifier.
        """
        return self._toploc.judge(self._exchange(request, response))

    def close(self) -> None:
        self._toploc.close()
        super().close()

    def _finish_late(self, exchange: Exchange, value: Any, proofs: ToplocProofs | None) -> None:
        if not self._toploc.idle:
            self._toploc.finish(exchange, value, proofs)

    def _process_response(self, **reply: Any) -> Any:
        request = self._prepare_reply(reply, ProvenStream)
        value = super()._process_response(**reply)
        if (exchange := self._whole(reply, request)) is not None:
            self._toploc.finish(exchange, value, _proofs(value, exchange))
        return value


class AsyncOpenAI(_Checked, openai.AsyncOpenAI):
    """See `OpenAI`."""

    @cached_property
    def chat(self) -> AsyncChat:
        chat = super().chat
        chat.__dict__["completions"] = AsyncProvenCompletions(self)
        return chat

    @cached_property
    def responses(self) -> AsyncResponses:
        return AsyncProvenResponses(self)

    async def verify(self, request: Any, response: Any = None) -> Judgement:
        """See `OpenAI.verify`."""
        return await self._toploc.judge_async(self._exchange(request, response))

    async def close(self) -> None:
        await self._toploc.close_async()
        await super().close()

    def _finish_late(self, exchange: Exchange, value: Any, proofs: ToplocProofs | None) -> None:
        # The SDK calls parsers without await.
        if not self._toploc.idle:
            self._toploc.leave(exchange, value, proofs)

    async def _process_response(self, **reply: Any) -> Any:
        request = self._prepare_reply(reply, AsyncProvenStream)
        value = await super()._process_response(**reply)
        if (exchange := self._whole(reply, request)) is not None:
            await self._toploc.finish_async(exchange, value, _proofs(value, exchange))
        return value


def _own(options: dict[str, Any]) -> dict[str, Any]:
    """Ours of a client's options, taken out of them."""
    return {name: options.pop(name) for name in NAMES if name in options}


def _proofs(value: Any, exchange: Exchange) -> ToplocProofs | None:
    """Of an object of the SDK, or of a raw response, which is not parsed before its user does."""
    return typed(value) if hasattr(value, "__pydantic_extra__") else exchange.proofs
