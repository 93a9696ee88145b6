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

from pydantic import BaseModel, TypeAdapter, ValidationError

from toploc.evidence.alternatives import MORE

from ...verify.assembled import assembled
from ...verify.engine import DELIVERY, Performance, Scored
from ..guards import load, method
from . import reliances
from .call import Call
from .logprobs import LISTED, LISTS, lengthen, unknown
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

sanitize_message: Final = load(reliances.SANITIZE_MESSAGE)

_FLAG: Final[TypeAdapter[bool | None]] = TypeAdapter(bool | None)


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


LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields that bound an answer's tokens; of a chat that has the first two the first counts."""


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
        asked = {name: value for name, value in body.items() if name not in DELIVERY}
        if route == "response":
            asked["store"] = False
        options = asked
        if route == "generate":
            options = asked["sampling_params"] = {**body["sampling_params"]}
        limit = _shorten(options, choices)
        performance = Performance(asked=lengthen(route, options))
        if stream:
            asked |= {name: body[name] for name in ("stream", "stream_options") if name in body}
        try:
            request = request_class.model_validate(asked)
            in_background = _FLAG.validate_python(body.get("background", False))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            return Performance(problem=f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except Exception as error:
            # What vLLM's validators raise themselves (VLLMValidationError) is no ValueError, which pydantic would take.
            return Performance(problem=_message(error))
        play = _Play(
            performance,
            self._replayer,
            choices,
            prefills,
            1 if one_by_one else TOKENS_AT_ONCE,
            route == "completion",
            limit,
        )
        token = _play.set(play)
        media = Reading()
        read = reading.set(media)
        outputs = replayed.set(iter(tool_outputs))
        answer: Any = None
        try:
            with suppress(asyncio.CancelledError):
                answer = await create(request, None)
                if isinstance(answer, BaseModel):
                    answer = answer.model_dump(mode="json", by_alias=route == "response")
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
        if isinstance(answer, dict) and not answer.get("error"):
            if route == "response" and LISTED[0] in performance.asked:
                answer["top_logprobs"] -= MORE  # what was asked for, repeated
            if route == "response":
                answer["background"] = in_background
            performance.response = answer
        else:
            performance.problem = performance.problem or _message(answer)
            performance.unfetched = media.unfetched
        return performance


def _shorten(body: dict[str, Any], choices: Sequence[Sequence[Claim]]) -> int | None:
    """Ask for no more tokens than the answer has; the limit that the request asks for, None where it has none.

    A provider's context may hold a limit that this server's does not, and its routes would refuse. The replay ends
    where the request's own limit is.
    """
    names = [name for name in LIMITS if isinstance(body.get(name), int | float)]
    if not names or any(body[name] < 1 for name in names):
        return None
    longest = max((len(claim.token_ids) for call in choices for claim in call), default=1)
    limit = int(body[names[0]])
    for name in names:
        body[name] = min(int(body[name]), max(1, longest, int(body.get("min_tokens") or 0)))
    return limit


def _message(refusal: Any) -> str:
    """Without paths and addresses, which exceptions tell of and vLLM's own error handlers take out."""
    error = refusal.get("error") if isinstance(refusal, dict) else refusal
    said = error.get("message") if isinstance(error, dict) else error
    message: str = sanitize_message(str(said or "nothing was generated"))
    return message[:200]
