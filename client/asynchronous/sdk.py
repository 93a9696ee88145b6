"""The OpenAI SDK's client, which checks the answers it brings."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import openai

from ..foreign import BROKEN, guarded
from ..sdk import Checked, answer_of
from ..seeds import PATIENCE, sampler_in
from .finishing import finish, judge
from .helpers import AsyncProvenCompletions, AsyncProvenResponses
from .kept import fetch
from .streams import AsyncProvenStream
from .tap import AsyncTap

if TYPE_CHECKING:
    from openai.resources.chat import AsyncChat
    from openai.resources.responses import AsyncResponses

    from ..answer import Answer
    from ..judgement import Judgement
    from ..kept import Kept


class AsyncOpenAI(Checked, openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` with the options of `toploc_client.Options`; `docs/client.md` explains them.

    Raises ToplocError for options that are none, and UnacceptedResponse from any call that brings an answer.
    """

    _stream_type = AsyncProvenStream
    _tap_type = AsyncTap

    @cached_property
    def chat(self) -> AsyncChat:
        chat = super().chat
        chat.__dict__["completions"] = AsyncProvenCompletions(self)
        return chat

    @cached_property
    def responses(self) -> AsyncResponses:
        return AsyncProvenResponses(self)

    async def verify(self, request: Any, response: Any = None) -> Judgement:
        """What the verifiers say: of a request and its response, or of an object that this client gave alone.

        `request` is what the SDK was called with or the body itself. A response without proofs is looked up with this
        client's server. Raises ToplocError where there is no verifier.
        """
        return await judge(self._toploc, self._exchange(request, response), self._fetch)

    async def _fetch(self, response_id: str) -> Kept:
        return await fetch(self, response_id)

    async def _finish(self, answer: Answer) -> None:
        await finish(self._toploc, answer, self._fetch)

    async def close(self) -> None:
        await self._toploc.close_async()
        await super().close()

    async def _prepare_options(self, options: Any) -> Any:
        options = await super()._prepare_options(options)
        if self._samples(options):
            if self._toploc.sampler is None:
                described: object = None
                with suppress(openai.OpenAIError, *BROKEN):
                    described = await self.with_options(max_retries=0, timeout=PATIENCE).get("/toploc", cast_to=object)
                self._toploc.sampler = sampler_in(described)
            self._seed(options)
        return options

    async def _prepare_request(self, request: Any) -> None:
        await super()._prepare_request(request)
        self._note_sent(request)

    async def _process_response(self, **reply: Any) -> Any:
        sent = self._prepare_reply(reply)
        if sent is None:
            return await super()._process_response(**reply)
        with guarded(reply["response"]):
            value = await super()._process_response(**reply)
        await self._finish(answer_of(value, sent, reply["response"]))
        return value
