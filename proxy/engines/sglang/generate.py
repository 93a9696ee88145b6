"""What is wrapped in a process that serves HTTP: tags requests on the way to the scheduler, fetches proofs on the way
back.

Every route of SGLang generates through `TokenizerManager.generate_request`, which makes a request of the scheduler of
each choice. So what is not here needs no knowledge of routes.
"""

from __future__ import annotations

import copy
import functools
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from toploc.protocol import ProofError

from ... import metrics
from ...answers.context import Call, RequestContext, current
from ...answers.proving import prove_choice
from ...channel.tag import EXTRA_ARG, Tag
from ...tracing import Spans
from ..guards import load
from . import reliances
from .call import name_of
from .early import Running, ask_for_ended
from .prefill import prefilling
from .rehearsal import rehearsed
from .tracing import emit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ...channel.client import Channel

UNPROVABLE: Final = {
    "mm_inputs": "prompts with media",
    "input_embeds": "prompts given as embeddings",
    "positional_embed_overrides": "prompts with embeddings in them",
    "session_params": "prompts that continue a session, which the scheduler puts before them",
    "bootstrap_room": "requests whose prefill another server runs",
}
"""Fields of a request to the scheduler with which a verifier cannot rebuild its prompt from a request and token ids."""


class Proving:
    """One process's: connected once its scheduler answers. Until then, requests are not tagged."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._spans = Spans(emit)
        self.channel: Channel | None = None

    def install(self) -> None:
        """Wraps the methods of `TokenizerManager` in this process. Raises UnsupportedEngine."""
        manager: Any = load(reliances.TOKENIZER_MANAGER)
        dispatch, wait = manager._dispatch_to_scheduler, manager._wait_one_response
        handle, generate = manager._handle_batch_output, manager.generate_request
        single, batch = load(reliances.TOKENIZED), load(reliances.TOKENIZED_BATCH)

        @functools.wraps(dispatch)
        def tag_and_dispatch(this: Any, obj: Any) -> Any:
            for one in [obj] if isinstance(obj, single) else obj.batch if isinstance(obj, batch) else ():
                self._tag(this, one)
            return dispatch(this, obj)

        @functools.wraps(wait)
        def wait_and_prove(this: Any, obj: Any, request: Any = None) -> AsyncIterator[dict[str, Any]]:
            # Before SGLang forgets the request: it does so when the last output comes.
            state = this.rid_to_state[obj.rid]
            outputs = wait(this, obj, request)
            running = getattr(state, "toploc_running", None)
            return outputs if running is None else self._prove(outputs, state, running)

        @functools.wraps(handle)
        async def ask_and_handle(this: Any, recv_obj: Any) -> None:
            if hasattr(recv_obj, "output_ids"):
                ask_for_ended(this.rid_to_state, recv_obj)
            await handle(this, recv_obj)

        @functools.wraps(generate)
        def rehearse_or_generate(this: Any, obj: Any, request: Any = None) -> AsyncIterator[Any]:
            rehearsal = rehearsed(obj)
            return generate(this, obj, request) if rehearsal is None else rehearsal

        manager._dispatch_to_scheduler, manager._wait_one_response = tag_and_dispatch, wait_and_prove
        manager._handle_batch_output, manager.generate_request = ask_and_handle, rehearse_or_generate
        manager.toploc_generate = generate

    def _tag(self, manager: Any, request: Any) -> None:
        """Puts a tag into a request to the scheduler, on a copy of its parameters: choices share them, and a client's
        own value under our key is dropped."""
        params = copy.copy(request.sampling_params)
        custom = {key: value for key, value in (params.custom_params or {}).items() if key != EXTRA_ARG}
        state = manager.rid_to_state.get(request.rid)
        sealed = prefilling.get() or self._begin(request, state)
        params.custom_params = {**custom, **sealed} or None
        request.sampling_params = params

    def _begin(self, request: Any, state: Any) -> dict[str, Any]:
        """The request's parameters of ours; none of one that is not to be proven."""
        context = current.get()
        # Scores of prompts generate nothing, nor does SGLang where it has a prompt of several choices cached first.
        if context is None or self.channel is None or state is None or request.sampling_params.max_new_tokens == 0:
            return {}
        call, child = _call_of(context, request, state)
        if call.refusal is not None:
            context.settled = True
            metrics.ANSWERS.labels(call.refusal.code).inc()
            return {}
        tag = Tag.new()
        state.toploc_running = Running(self.channel, context, call, child, tag)
        return {EXTRA_ARG: tag.seal(self._secret)}

    async def _prove(
        self, outputs: AsyncGenerator[dict[str, Any], None], state: Any, running: Running
    ) -> AsyncIterator[dict[str, Any]]:
        """SGLang's own outputs, the last of them once its proofs are there."""
        call, child = running.call, running.child
        try:
            # Left before its end, the generator of SGLang's must be closed.
            async with aclosing(outputs):
                async for output in outputs:
                    reason = output["meta_info"]["finish_reason"]
                    if reason is not None and child not in call.choices:
                        await self._finish(running, list(state.output_ids), output["meta_info"])
                    yield output
        finally:
            running.close()
            if child not in call.choices:
                running.discard()

    async def _finish(self, running: Running, token_ids: list[int], said: dict[str, Any]) -> None:
        call, child = running.call, running.child
        reason = said["finish_reason"]
        fetched = running.fetch(token_ids, reason if isinstance(reason, dict) else {})
        early = running.early is not None
        proven = await prove_choice(self._spans, call, child, token_ids, fetched, asked_early=early)
        if said.get("prompt_tokens") not in (None, len(call.prompt_token_ids)):
            # The scheduler may cut a prompt once more (--allow-auto-truncate).
            error = ProofError(code="unsupported_prompt", message="the prompt was cut to what the model takes")
            proven = proven.model_copy(update={"proofs": None, "error": error})
        call.choices[child] = proven
        running.context.settled = True


def _call_of(context: RequestContext, request: Any, state: Any) -> tuple[Call, int]:
    """Where this choice belongs: choices of one prompt are those of one call. Prompts are sent one after another, and
    so are the choices of each."""
    prompt = list(request.input_ids or ())
    adapter = state.obj.lora_path if isinstance(state.obj.lora_path, str) else None
    model = name_of(context.served.model, adapter)
    refusal = _refusal(context, request, model)
    last = context.calls[-1] if context.calls else None
    if last is not None and (last.model, list(last.prompt_token_ids), last.refusal) == (model, prompt, refusal):
        last.n += 1
        return last, last.n - 1
    headers = state.obj.external_trace_header
    call = Call(model, 1, refusal, prompt_token_ids=prompt, request_id=str(request.rid), trace_headers=headers)
    context.calls.append(call)
    return call, 0


def _refusal(context: RequestContext, request: Any, model: str) -> ProofError | None:
    if context.refusal is not None:
        return context.refusal
    if context.asked not in (None, model):
        # SGLang answers under any name. A verifier would take it for another model's, and `lora_path` for nothing.
        return ProofError(code="model_name", message=f"the request does not name the model that answers, {model!r}")
    for name, what in UNPROVABLE.items():
        if getattr(request, name, None) is not None:
            return ProofError(code="unsupported_prompt", message=f"{what} cannot be proven")
    if (getattr(request.sampling_params, "beam_width", None) or 1) > 1:
        message = "beam search picks tokens over several generations and cannot be proven"
        return ProofError(code="beam_search", message=message)
    return None
