"""The engine's part of a rehearsal: outputs of the tokens that an answer claims, made by vLLM's own code.

Nothing is generated. vLLM's input processor reads the prompt and the options, its scheduler's rule says where the
answer ends, and its output processor makes text, stop reasons and log-probabilities of the tokens, as always.
"""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from vllm.renderers.inputs.preprocess import extract_prompt_components
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreOutput, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.outputs import LogprobsLists, LogprobsTensors
from vllm.v1.request import Request

from toploc.scheme import CHUNK_SIZE

from ...verify.engine import Text
from ..guards import require_members, takes
from . import reliances
from .logprobs import LISTS, mark

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from vllm.engine.protocol import EngineClient
    from vllm.outputs import RequestOutput
    from vllm.v1.engine import EngineCoreRequest

    from ...verify.engine import Claim, Scored
    from .call import Call

TOKENS_AT_ONCE: Final = CHUNK_SIZE
"""In one step of the engine's, so that it is known where in the text the chunks of a proof are."""

TOKENS_A_TURN: Final = 512
"""Of the event loop: 2 ms of detokenizing, so that a long answer delays no stream of the server's."""


class Unended(Exception):
    """The engine would have gone on, or have ended before.

    Attributes:
        choice: its place among the choices of the prompt.
        count: tokens after which it ends; None if it does not.
    """

    def __init__(self, choice: int, count: int | None) -> None:
        super().__init__(choice, count)
        self.choice = choice
        self.count = count


@dataclass(frozen=True, slots=True)
class _End:
    """Where the engine ends an answer, and why."""

    count: int
    reason: FinishReason | None
    stop_reason: int | str | None


class Replayer:
    """Answers in the engine's place.

    Raises:
        UnsupportedEngine: this vLLM's parts are not those that are known.
    """

    def __init__(self, engine: EngineClient) -> None:
        require_members(engine, reliances.ENGINE_INPUT)
        self._engine: Any = engine
        self._context_length = int(engine.vllm_config.model_config.max_model_len)
        # Responses name the weights that made them. What the operator calls them is not compared.
        self._weights = {"weight_version": ""} if takes(reliances.WEIGHT_VERSION) else {}

    async def read(self, call: Call) -> Call:
        """The call with what vLLM's input processor makes of prompt and options.

        Raises:
            Exception: whatever vLLM raises for these.
        """
        request = self._engine.input_processor.process_inputs(
            call.request_id,
            call.prompt,
            call.asked_params,
            supported_tasks=await self._engine.get_supported_tasks(),
            lora_request=call.lora_request,
        )
        for name, value in call.reasoning.items():
            setattr(request, name, value)
        self._engine.input_processor.assign_request_id(request)
        for name in LISTS:
            setattr(request.sampling_params, name, getattr(call.sampling_params, name))
        if call.limit is not None:
            request.sampling_params.max_tokens = call.limit
        return replace(call, request=request)

    async def outputs(
        self,
        call: Call,
        choices: Sequence[Claim],
        scored: Sequence[Scored],
        texts: list[Text],
        *,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> AsyncGenerator[RequestOutput, None]:
        """What `generate` would give for these choices of one prompt, and their log-probabilities; adds their `texts`.

        1. vLLM makes a request of each choice.
        2. Each ends where the engine's rule says; one whose tokens are not proven ends with them.
        3. The tokens become outputs. A stop string may end a choice before its last token.

        Raises:
            Unended: a choice has fewer or more tokens than until its end.
        """
        request = call.request
        if request is None:
            raise ValueError("the call has to be read first")
        processor = OutputProcessor(self._engine.renderer.tokenizer, log_stats=False)
        text, _, _ = extract_prompt_components(self._engine.model_config, call.prompt)
        parent, children = _children(request)  # 1
        for index, child in enumerate(children):
            processor.add_request(child, text, parent, index)
        for index, (child, (token_ids, proven), scores) in enumerate(zip(children, choices, scored, strict=True)):
            end = self._end(child, token_ids)  # 2
            if not proven and end is None:
                end = _End(len(token_ids), FinishReason.ABORT, None)
            # Several tokens at once may hide which of them completed a stop string (vLLM 0.26).
            size = 1 if child.sampling_params.stop else tokens_at_once
            detokenizer = processor.request_states[child.request_id].detokenizer
            offsets = [0]
            count = 0
            for output in _steps(child.request_id, token_ids, end, size, scores):  # 3
                made = processor.process_outputs([output], **self._weights).request_outputs
                count += len(output.new_token_ids)
                ended = child.request_id not in processor.request_states
                if count == len(token_ids) and not ended:
                    raise Unended(index, None)
                if proven and ended and count < len(token_ids):
                    raise Unended(index, count)
                if ended or count % CHUNK_SIZE == 0:
                    offsets.append(len(detokenizer.output_text))
                for request_output in made:
                    if call.by_text:
                        mark(request_output)
                    yield request_output
                if count % TOKENS_A_TURN == 0:
                    await asyncio.sleep(0)
            # A stop string that is left out may have begun in an earlier chunk.
            texts.append(Text(detokenizer.output_text, tuple(min(offset, offsets[-1]) for offset in offsets)))

    def _end(self, child: EngineCoreRequest, token_ids: Sequence[int]) -> _End | None:
        """By the engine's rule, which is asked where it may say so, and at the last token."""
        request, params = Request.from_engine_core_request(child, None), child.sampling_params
        ends = {params.eos_token_id, *params.all_stop_token_ids, *(params.stop_token_ids or ())}
        limit = min(request.max_tokens, self._context_length - request.num_tokens)
        is_watched = getattr(params, "repetition_detection", None) is not None
        last, done = len(token_ids), 0
        for count, token in enumerate(token_ids, 1):
            if count in (limit, last) or token in ends or is_watched:
                request.append_output_token_ids(list(token_ids[done:count]))
                done = count
                if check_stop(request, self._context_length):
                    return _End(count, request.get_finished_reason(), request.stop_reason)
        return None


def _children(request: EngineCoreRequest) -> tuple[ParentRequest | None, list[EngineCoreRequest]]:
    """A request for each choice, as in vllm/v1/engine/async_llm.py."""
    if request.sampling_params.n == 1:
        return None, [request]
    parent = ParentRequest(request)
    children = []
    for index in range(request.sampling_params.n):
        child = copy(request)
        child.request_id, child.sampling_params = parent.get_child_info(index)
        children.append(child)
    return parent, children


def _steps(
    request_id: str, token_ids: Sequence[int], end: _End | None, size: int, scored: Scored
) -> Iterator[EngineCoreOutput]:
    count = len(token_ids) if end is None else end.count
    for first in range(0, count, size):
        last = min(first + size, count)
        output = EngineCoreOutput(request_id, list(token_ids[first:last]))
        if scored.answer is not None:
            columns = scored.answer.ids, scored.answer.values, scored.answer.ranks
            output.new_logprobs = LogprobsLists(*(column[first:last] for column in columns))
        if first == 0 and scored.prompt is not None:
            columns = scored.prompt.ids, scored.prompt.values, scored.prompt.ranks
            output.new_prompt_logprobs_tensors = LogprobsTensors(*map(torch.tensor, columns))
        if end is not None and last == count:
            output.finish_reason, output.stop_reason = end.reason, end.stop_reason
        yield output
