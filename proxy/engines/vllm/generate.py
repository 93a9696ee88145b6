"""The wrapped `engine_client.generate`: tags requests on the way in, fetches proofs on the way out.

Every OpenAI-compatible route of vLLM generates through this one method, so what is not here needs no knowledge of
routes.
"""

from __future__ import annotations

import copy
import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from vllm.sampling_params import RequestOutputKind

from toploc.errors import ProofUnavailable
from toploc.protocol import ProofError
from toploc.tokens.sampling import GREEDY_BELOW

from ... import metrics
from ...answers.context import Call, RequestContext, current
from ...answers.proving import inputs_of, prove_choice
from ...channel.client import in_background
from ...channel.tag import EXTRA_ARG, Tag
from ...tracing import Spans
from .early import UNPROVEN, EarlyQuestions
from .media import media_of
from .rehearsal import rehearsed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams

    from toploc.protocol import ChoiceProofs

    from ...channel.client import Channel
    from ...channel.messages import Proofs

UNPROVABLE_PROMPTS: Final = {
    "embeds": "prompts given as embeddings",
    "enc_dec": "encoder-decoder models",
    "multimodal": "media that came as embeddings, under a `uuid` of the request's, or past the chat routes",
}
"""Kinds of prompts (vllm/inputs) that a verifier cannot rebuild from a request and token ids."""


class ProvingGenerate:
    """Callable with the signature of the `generate` it wraps."""

    def __init__(
        self,
        generate: Callable[..., AsyncGenerator[RequestOutput, None]],
        channel: Channel,
        secret: str,
        *,
        early: EarlyQuestions | None = None,
        seed_requests: bool = False,
        spans: Spans | None = None,
    ) -> None:
        self._generate = generate
        self._channel = channel
        self._early = early or EarlyQuestions(channel)
        self._secret = secret
        self._seed_requests = seed_requests
        self._spans = spans or Spans()

    def __call__(
        self, prompt: Any, sampling_params: SamplingParams, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        request_id = kwargs.get("request_id") or (args[0] if args else "")
        rehearsal = rehearsed(prompt, sampling_params, request_id, kwargs)
        if rehearsal is not None:
            return rehearsal
        # Here and not in the generator, which may be advanced in another context than this call's.
        context = current.get()
        if context is None:
            return self._generate(prompt, without_tag(sampling_params), *args, **kwargs)
        lora = kwargs.get("lora_request")
        call = Call(lora.lora_name if lora else context.served.model, sampling_params.n, _refusal(context, prompt))
        call.request_id = request_id
        call.media = media_of(prompt) or ()
        call.trace_headers = kwargs.get("trace_headers")
        context.calls.append(call)
        if call.refusal is not None:
            context.settled = True
            metrics.ANSWERS.labels(call.refusal.code).inc()
            return self._generate(prompt, without_tag(sampling_params), *args, **kwargs)
        tag = Tag.new(children=sampling_params.n)
        tagged = with_tag(sampling_params, tag, self._secret, seed_requests=self._seed_requests)
        call.seed = seed_of(tagged, context.served.sampler)
        delta = tagged.output_kind is RequestOutputKind.DELTA
        return self._prove(self._generate(prompt, tagged, *args, **kwargs), context, call, tag, delta=delta)

    async def _prove(
        self,
        outputs: AsyncGenerator[RequestOutput, None],
        context: RequestContext,
        call: Call,
        tag: Tag,
        *,
        delta: bool,
    ) -> AsyncGenerator[RequestOutput, None]:
        token_ids: list[list[int]] = [[] for _ in range(tag.children)]
        self._early.watch(tag)
        try:
            # Left before its end, the engine's generator must be closed, or the engine goes on generating for nobody.
            async with aclosing(outputs):
                # What is in this loop every token of every request pays for.
                async for output in outputs:
                    for choice in output.outputs:
                        if delta:
                            token_ids[choice.index] += choice.token_ids
                        if choice.finish_reason is not None and choice.index not in call.choices:
                            generated = token_ids[choice.index] if delta else list(choice.token_ids)
                            call.prompt_token_ids = output.prompt_token_ids or ()
                            call.choices[choice.index] = await self._finish(call, tag, choice, generated)
                            context.settled = True
                    yield output
        finally:
            self._early.forget(tag)
            unclaimed = [child for child in range(tag.children) if child not in call.choices]
            if unclaimed:
                in_background(self._channel.discard(tag.nonce, unclaimed))

    async def _finish(self, call: Call, tag: Tag, choice: CompletionOutput, token_ids: list[int]) -> ChoiceProofs:
        index = choice.index
        fetched = self._fetch(call, tag, choice, token_ids)
        seed, early = seed_of_choice(call.seed, index), self._early.is_asked(tag, index)
        return await prove_choice(self._spans, call, index, token_ids, fetched, seed=seed, asked_early=early)

    async def _fetch(self, call: Call, tag: Tag, choice: CompletionOutput, token_ids: list[int]) -> Proofs:
        if choice.finish_reason in UNPROVEN:
            in_background(self._channel.discard(tag.nonce, [choice.index]))
            raise ProofUnavailable("aborted", "the generation was aborted before its end")
        inputs = inputs_of(call.prompt_token_ids, token_ids)
        early = self._early.take(tag, choice.index)
        if early is None:
            return await self._channel.finalize(tag.nonce, choice.index, inputs)
        asked_for, reply = early
        if asked_for != inputs:
            reply.forget()
            raise RuntimeError(f"the engine ended with {len(asked_for)} tokens, the answer with {len(inputs)}")
        return await self._channel.proofs(reply)


def without_tag(sampling_params: SamplingParams) -> SamplingParams:
    """A copy that carries no value under our key: `extra_args` may be the client's own `vllm_xargs`, by reference,
    shared by all prompts of the request."""
    params = copy.copy(sampling_params)
    if params.extra_args and EXTRA_ARG in params.extra_args:
        params.extra_args = {key: value for key, value in params.extra_args.items() if key != EXTRA_ARG}
    return params


def with_tag(sampling_params: SamplingParams, tag: Tag, secret: str, *, seed_requests: bool) -> SamplingParams:
    """A copy that has the worker capture the answer, and a seed of ours if it samples without one and is to have it."""
    params = without_tag(sampling_params)
    params.extra_args = {**(params.extra_args or {}), EXTRA_ARG: tag.seal(secret)}
    if seed_requests and params.seed is None and params.temperature >= GREEDY_BELOW:
        return seeded(params)
    return params


def seed_of(sampling_params: SamplingParams, sampler: str | None) -> int | None:
    """With which the first choice is drawn, if it is drawn and the sampler can be replayed."""
    return sampling_params.seed if sampler and sampling_params.temperature >= GREEDY_BELOW else None


def seed_of_choice(seed: int | None, index: int) -> int | None:
    """By vLLM's own rule for n > 1 (vllm/v1/engine/parallel_sampling.py)."""
    return None if seed is None else seed + index


def seeded(sampling_params: SamplingParams) -> SamplingParams:
    """A copy with a random seed, below 2^53 so that it is exact in every JSON parser."""
    params = copy.copy(sampling_params)
    params.seed = secrets.randbelow(2**52)
    vars(params).pop("sampling_type", None)  # cached
    return params


def _refusal(context: RequestContext, prompt: Any) -> ProofError | None:
    if context.refusal is not None:
        return context.refusal
    kind = prompt.get("type") if isinstance(prompt, dict) else None
    if kind in UNPROVABLE_PROMPTS and media_of(prompt) is None:
        return ProofError(code="unsupported_prompt", message=f"{UNPROVABLE_PROMPTS[kind]} cannot be proven")
    return None
