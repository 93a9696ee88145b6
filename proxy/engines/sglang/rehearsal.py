"""What the server itself would answer to a request with given tokens, found by letting its own route run.

The routes of SGLang read the request, render the prompt by the chat template, call
`TokenizerManager.generate_request`, and make a response of what comes out of it. In a rehearsal that is the answer's
own tokens (`replay.py`), and nothing is generated.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError
from starlette.responses import Response, StreamingResponse

from ...verify.assembled import assembled
from ...verify.engine import DELIVERY, Performance, Scored
from ..guards import load, method
from . import reliances
from .logprobs import LISTED, unknown
from .reasoning import Reasoning
from .replay import TOKENS_AT_ONCE, Replayer, Unended, Unreplayable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.datastructures import State

    from ...verify.engine import Claim, Prefills, Text
    from ..reliance import Reliance
    from .call import Call


class Handler(NamedTuple):
    """Where in SGLang an endpoint is: the application state's attribute, its method, and the request's class."""

    attribute: str
    create: Reliance
    request: Reliance


HANDLERS: Final = {
    "chat": Handler("openai_serving_chat", reliances.CHAT, reliances.CHAT_REQUEST),
    "completion": Handler("openai_serving_completion", reliances.COMPLETION, reliances.COMPLETION_REQUEST),
    "response": Handler("openai_serving_responses", reliances.RESPONSE, reliances.RESPONSE_REQUEST),
    "message": Handler("anthropic_serving", reliances.MESSAGE, reliances.MESSAGE_REQUEST),
}


IDS: Final = frozenset(
    ("return_token_ids", "return_prompt_token_ids", "return_input_ids_in_sglext", "return_output_ids_in_sglext")
)
"""Fields of requests that ask for token ids, which a rehearsal has."""

OF_THE_ENGINE: Final = frozenset(
    ("return_routed_experts", "return_spec_tokens_details", "return_hidden_states", "return_cached_tokens_details")
)
"""Fields of requests that ask for what the engine's steps did, or what its cache held, and change nothing else in a
response. The comparison takes these parts of it for free or unbound."""


@dataclass(frozen=True, slots=True)
class _Play:
    performance: Performance
    replayer: Replayer
    choices: Sequence[Sequence[Claim]]
    """Those of each prompt."""
    prefills: Prefills
    tokens_at_once: int
    route: str
    limit: int | None
    """Of tokens, which a request to `/v1/responses` asks for."""

    async def outputs(self, obj: Any) -> AsyncIterator[Any]:
        """What `generate_request` gives: of one prompt with one choice its outputs, else lists, or outputs with their
        number."""
        obj.normalize_batch_and_arguments()
        made: list[list[dict[str, Any]]] = []
        try:
            for one in [obj] if obj.is_single else [obj[i] for i in range(obj.batch_size)]:
                made += await self._of_prompt(one)
        except Unended as error:
            self.performance.ended = error.choice, error.count
            raise asyncio.CancelledError from None
        except Unreplayable as error:
            self.performance.problem = str(error)
            raise asyncio.CancelledError from None
        if not obj.stream:
            yield made[0][-1] if obj.is_single else [outputs[-1] for outputs in made]
            return
        for index, outputs in enumerate(made):
            for output in outputs:
                yield output if obj.is_single else {**output, "index": index}

    async def _of_prompt(self, obj: Any) -> list[list[dict[str, Any]]]:
        place = len(self.performance.prompts)
        if place >= len(self.choices):
            raise Unreplayable(f"the answer has tokens for {len(self.choices)} prompts, and here is another")
        longest = max((len(claim.token_ids) for claim in self.choices[place]), default=0)
        # SGLang takes two tokens off this limit (ResponsesRequest.to_sampling_params in
        # sglang/srt/entrypoints/openai/protocol.py). An answer of another engine that is as long as the request asks
        # for has ended where the request says.
        call = await self.replayer.read(obj, self.limit if self.limit == longest else None)
        self.performance.prompts.append(call)
        self.prefills.begin(place, call)
        if obj.return_logprob and self.route == "response":
            # It lists the likeliest by text, so of two with one text it leaves one out.
            raise Unreplayable("log-probabilities of /v1/responses are not rehearsed by this server")
        if obj.return_logprob and obj.logprob_start_len not in (None, -1):
            raise Unreplayable("log-probabilities of prompts are not rehearsed by this server")
        # The engine is given its work before the tokens are turned into text.
        await asyncio.sleep(0)
        before = sum(map(len, self.choices[:place]))
        scored = await self._scored(place, call)
        texts: list[Text] = []
        outputs = [
            self.replayer.outputs(
                obj,
                call,
                before + index,
                claim,
                scored[index],
                texts,
                tokens_at_once=self.tokens_at_once,
                by_text=self.route == "completion",
            )
            for index, claim in enumerate(self.choices[place])
        ]
        self.performance.texts |= {before + index: text for index, text in enumerate(texts)}
        return outputs

    async def _scored(self, place: int, call: Call) -> Sequence[Scored]:
        """The log-probabilities that the response reports of the choices of a prompt."""
        choices, request = self.choices[place], call.request
        if not request.return_logprob:
            return [Scored()] * len(choices)
        if request.top_logprobs_num:
            self.performance.asked = {LISTED: request.top_logprobs_num}
        found = None if call.logprobs is None else await self.prefills.scored(place)
        self.performance.scored = self.performance.scored and found is not None
        return found or [unknown(claim) for claim in choices]


_play: Final[ContextVar[_Play | None]] = ContextVar("toploc_rehearsal", default=None)


def rehearsed(obj: Any) -> AsyncIterator[Any] | None:
    """What `generate_request` returns in a rehearsal, None outside of one."""
    play = _play.get()
    return None if play is None else play.outputs(obj)


class Rehearsal:
    """The server's routes.

    Raises:
        UnsupportedEngine: this SGLang's are not where they are known to be.
    """

    def __init__(self, manager: Any, state: State) -> None:
        chat = getattr(state, "openai_serving_chat", None)
        self._replayer = Replayer(manager, Reasoning.of(getattr(chat, "reasoning_parser", None), manager.tokenizer))
        self._routes: dict[str, tuple[Any, Any]] = {}
        for route, handler in HANDLERS.items():
            serving = getattr(state, handler.attribute, None)
            if serving is not None:
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
        """See `verify.engine.Rehearsal`. The route ends at the first prompt that there are no choices for."""
        if route not in self._routes:
            return Performance(problem="this server does not have the request's endpoint")
        if tool_outputs:
            return Performance(problem="tools that the server runs itself are not rehearsed")
        known = IDS | OF_THE_ENGINE
        if inside := sorted(n for n, value in body.items() if n.startswith("return_") and value and n not in known):
            return Performance(problem=f"{inside[0][:100]} asks for what only the engine that answered knows")
        request_class, create = self._routes[route]
        asked = {name: value for name, value in body.items() if name not in OF_THE_ENGINE.union(DELIVERY)}
        if "store" in body:
            asked["store"] = body["store"]
        if stream:
            asked |= {name: body[name] for name in ("stream", "stream_options") if name in body}
        try:
            request = request_class.model_validate(asked)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            return Performance(problem=f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        stored = getattr(request, "store", None)
        if route == "response":
            request.store = False
        performance = Performance(chosen_first=False)
        pieces = 1 if one_by_one else TOKENS_AT_ONCE
        limit = request.max_output_tokens if route == "response" else None
        play = _Play(performance, self._replayer, choices, prefills, pieces, route, limit)
        answer = await _answer(play, create, request)
        if isinstance(answer, dict) and not answer.get("error") and answer.get("object") != "error":
            if route == "response":
                answer["store"] = stored  # what was asked for, repeated
            performance.response = answer
        elif performance.ended is None:
            performance.problem = performance.problem or _message(answer)
        return performance


async def _answer(play: _Play, create: Any, request: Any) -> Any:
    """What the route answers, as JSON; an exception; or None."""
    token = _play.set(play)
    answer: Any = None
    try:
        with suppress(asyncio.CancelledError):
            answer = await _as_json(await create(request, None))
    except Exception as error:
        # Templates and parsers are programs that run on foreign input: anything may come out.
        answer = error
    finally:
        _play.reset(token)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return answer


async def _as_json(answer: Any) -> Any:
    match answer:
        case BaseModel():
            return answer.model_dump(mode="json", by_alias=True)
        case StreamingResponse():
            return await assembled(answer.body_iterator)
        case Response():
            return json.loads(bytes(answer.body))
        case None | dict():
            return answer
        case _:
            return await assembled(answer)


def _message(refusal: Any) -> str:
    """In a line, without what may tell of paths and addresses."""
    error = (refusal.get("error") or refusal) if isinstance(refusal, dict) else None
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or (type(refusal).__name__ if refusal is not None else "nothing was generated"))[:200]
