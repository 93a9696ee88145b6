# Made from client/asynchronous/sdk.py by scripts/synchronous.py: change that one.
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
from .helpers import ProvenCompletions, ProvenResponses
from .kept import fetch
from .streams import ProvenStream
from .tap import Tap

if TYPE_CHECKING:
    from openai.resources.chat import Chat
    from openai.resources.responses import Responses

    from ..answer import Answer
    from ..judgement import Judgement
    from ..kept import Kept


class OpenAI(Checked, openai.OpenAI):
    """`openai.OpenAI` with the options of `toploc_client.Options`; `docs/client.md` explains them.

    Raises ToplocError for options that are none, and UnacceptedResponse from any call that brings an answer.
    """

    _stream_type = ProvenStream
    _tap_type = Tap

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

        `request` is what the SDK was called with or the body itself. A response without proofs is looked up with this
        client's server. Raises ToplocError where there is no verifier.
        """
        return judge(self._toploc, self._exchange(request, response), self._fetch)

    def _fetch(self, response_id: str) -> Kept:
        return fetch(self, response_id)

    def _finish(self, answer: Answer) -> None:
        finish(self._toploc, answer, self._fetch)

    def close(self) -> None:
        self._toploc.close()
        super().close()

    def _prepare_options(self, options: Any) -> Any:
        options = super()._prepare_options(options)
        if self._samples(options):
            if self._toploc.sampler is None:
                described: object = None
                with suppress(openai.OpenAIError, *BROKEN):
                    described = self.with_options(max_retries=0, timeout=PATIENCE).get("/toploc", cast_to=object)
                self._toploc.sampler = sampler_in(described)
            self._seed(options)
        return options

    def _prepare_request(self, request: Any) -> None:
        super()._prepare_request(request)
        self._note_sent(request)

    def _process_response(self, **reply: Any) -> Any:
        sent = self._prepare_reply(reply)
        if sent is None:
            return super()._process_response(**reply)
        with guarded(reply["response"]):
            value = super()._process_response(**reply)
        self._finish(answer_of(value, sent, reply["response"]))
        return value
