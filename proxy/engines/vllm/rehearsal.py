"""What the server itself would answer to a request with given tokens, found by letting its own route run.

The routes of vLLM read the request, choose the adapter, render the prompt by the chat template, call
`engine_client.generate`, and make a response of what comes out of it. In a rehearsal that is the answer's own tokens
(`replay.py`), and nothing is generated. So prompt and response are the server's own, in every version of vLLM, under
every parser and template, and with every option of the server.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel

from toploc.evidence.alternatives import MORE

from ...verify.assembled import assembled
from ...verify.engine import Performance, Scored
from ..guards import load, method
from . import reliances
from .asked import Asked, Refused, message_of
from .call import Call
from .logprobs import LISTED, LISTS, unknown
from .media import Reading, reading
from .replay import TOKENS_AT_ONCE, Replayer, Unended
from .tools import ReplayedTools, replayed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams

    from ...verify.engine import Claim, Prefills, Text
    from ..reliance import Reliance

REASONING: Final = ("reasoning_ended", "reasoning_parser_kwargs")
"""Options of `generate` that decide where in an answer its grammar begins."""


class Handler(NamedTuple):
    """Where in vLLM an endpoint is: the application state's attribute, its method, and the request's class."""

    attribute: str
    create: Reliance
    request: Reliance


HANDLERS: Final = {
    "chat": Handler("openai_serving_chat", reliances.CHAT, reliances.CHAT_REQUEST),
    "batch": Handler("openai_serving_chat_batch", reliances.BATCH, reliances.BATCH_REQUEST),
    "completion": Handler("openai_serving_completion", reliances.COMPLETION, reliances.COMPLETION_REQUEST),
    "response": Handler("openai_serving_responses", reliances.RESPONSE, reliances.RESPONSE_REQUEST),
    "message": Handler("anthropic_serving_messages", reliances.MESSAGE, reliances.MESSAGE_REQUEST),
    "generate": Handler("serving_tokens", reliances.TOKENS, reliances.TOKENS_REQUEST),
}


@dataclass(frozen=True, slots=True)
class _Play:
    performance: Performance
    replayer: Replayer
    choices: Sequence[Sequence[Claim]]
    """Those of each call."""
    prefills: Prefills
    tokens_at_once: int
    by_text: bool
    limit: int | None
    """Of tokens, which the request asks for."""

    async def outputs(self, call: Call, place: int) -> AsyncGenerator[RequestOutput, None]:
        call = self.performance.prompts[place] = await self.replayer.read(call)
        self.prefills.begin(place, call)
        choices = self.choices[place]
        before = sum(map(len, self.choices[:place]))
        scored = [Scored()] * len(choices)
        if call.logprobs is not None:
            found = await self.prefills.scored(place)
            self.performance.scored = self.performance.scored and found is not None
            scored = list(found or (unknown(claim.token_ids, call) for claim in choices))
        # The engine is given its work before the tokens are turned into text.
        await asyncio.sleep(0)
        texts: list[Text] = []
        try:
            replayed_outputs = self.replayer.outputs(call, choices, scored, texts, tokens_at_once=self.tokens_at_once)
            async for output in replayed_outputs:
                yield output
            self.performance.texts |= {before + place: text for place, text in enumerate(texts)}
        except Unended as error:
            self.performance.ended = before + error.choice, error.count
            # What routes take for a client that has gone, in silence.
            raise asyncio.CancelledError from None


_play: ContextVar[_Play | None] = ContextVar("toploc_rehearsal", default=None)


def rehearsed(
    prompt: Any, sampling_params: SamplingParams, request_id: str, options: Mapping[str, Any]
) -> AsyncGenerator[RequestOutput, None] | None:
    """What `generate` returns in a rehearsal, None outside of one. `options`: its others, by name."""
    play = _play.get()
    if play is None:
        return None
    calls = play.performance.prompts
    longer = {name for name, listed in zip(LISTS, LISTED, strict=True) if listed in play.performance.asked}
    call = Call(
        prompt,
        sampling_params,
        request_id,
        options.get("lora_request"),
        frozenset(longer),
        play.by_text and bool(longer),
        play.limit,
        {name: options[name] for name in REASONING if options.get(name) is not None},
    )
    calls.append(call)
    if len(calls) <= len(play.choices):
        return play.outputs(call, len(calls) - 1)
    play.performance.problem = f"the answer has tokens for {len(play.choices)} prompts, and here is another"
    return _end()


async def _end() -> AsyncGenerator[RequestOutput, None]:
    # What routes take for a client that has gone, in silence.
    raise asyncio.CancelledError
    yield  # type: ignore[unreachable]


class Rehearsal:
    """The server's routes.

    Raises:
        UnsupportedEngine: this vLLM's are not where they are known to be.
    """

    def __init__(self, state: State, engine: EngineClient) -> None:
        self._replayer = Replayer(engine)
        self._routes: dict[str, tuple[Any, Any]] = {}
        for route, handler in HANDLERS.items():
            serving = getattr(state, handler.attribute, None)
            if serving is not None:
                if getattr(serving, "tool_server", None) is not None:
                    serving.tool_server = ReplayedTools(serving.tool_server)
                self._routes[route] = load(handler.request), method(serving, handler.create)

    @property
    def routes(self) -> tuple[str, ...]:
        """Those whose responses are rehearsed."""
        return tuple(self._routes)

    async def perform(
        self,
        route: str,
        body: Mapping[str, Any],
        choices: Sequence[Sequence[Claim]],
        prefills: Prefills,
        tool_outputs: Sequence[str],
        *,
        stream: bool = False,
        one_by_one: bool = False,
    ) -> Performance:
        """See `verify.engine.Rehearsal`. The route ends at the first call that there are no choices for."""
        if route not in self._routes:
            return Performance(problem="this server does not have the request's endpoint")
        request_class, create = self._routes[route]
        try:
            asked = Asked.of(route, body, choices, request_class, stream=stream)
        except Refused as error:
            return Performance(problem=str(error))
        play = _Play(
            Performance(asked=asked.listed),
            self._replayer,
            choices,
            prefills,
            1 if one_by_one else TOKENS_AT_ONCE,
            route == "completion",
            asked.limit,
        )
        answer, media = await _performed(create, asked, play, tool_outputs)
        return _ended(play.performance, asked, answer, media)


async def _performed(create: Any, asked: Asked, play: _Play, tool_outputs: Sequence[str]) -> tuple[Any, Reading]:
    """What the route answers, as JSON, or raises; None where the replay ended it. And what media it read.

    Raises CancelledError where this task is cancelled.
    """
    token, media = _play.set(play), Reading()
    read = reading.set(media)
    outputs = replayed.set(iter(tool_outputs))
    answer: Any = None
    try:
        with suppress(asyncio.CancelledError):
            answer = await create(asked.request, None)
            if isinstance(answer, BaseModel):
                answer = answer.model_dump(mode="json", by_alias=asked.route == "response")
            elif answer is not None:
                answer = await assembled(answer)
    except Exception as error:
        # Templates and parsers are programs that run on foreign input: anything may come out.
        answer = error
    finally:
        _play.reset(token)
        reading.reset(read)
        replayed.reset(outputs)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return answer, media


def _ended(performance: Performance, asked: Asked, answer: Any, media: Reading) -> Performance:
    """With the response as if it had been asked for, or why there is none."""
    if isinstance(answer, dict) and not answer.get("error"):
        if asked.route == "response":
            if LISTED[0] in performance.asked:
                answer["top_logprobs"] -= MORE  # what was asked for, repeated
            answer["background"] = asked.in_background
        performance.response = answer
    else:
        performance.problem = performance.problem or message_of(answer)
        performance.unfetched = media.unfetched
    return performance
