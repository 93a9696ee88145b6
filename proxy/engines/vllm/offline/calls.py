"""Requests to be proven: their tags on the way into the engine, their proofs on the way out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.sampling_params import RequestOutputKind, SamplingParams

from toploc.errors import ProofUnavailable
from toploc.protocol import PromptDigest, ProofError, ToplocProofs

from ....answers.context import Served, to_error
from ....answers.proving import choice_proofs, inputs_of
from ....channel.client import in_background
from ....channel.tag import Tag
from ....log import logger
from ..early import UNPROVEN
from ..generate import UNPROVABLE_PROMPTS, seed_of, seed_of_choice, with_tag, without_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput

    from ....channel.client import Channel
    from ....channel.messages import Proofs
    from .background import Background

UNTAGGED = ProofError(code="unsupported_prompt", message="a request that is made beforehand cannot be tagged")


@dataclass(slots=True)
class Call:
    """One request in the engine, of `n` choices; `refusal`: why it cannot be proven."""

    model: str
    n: int
    refusal: ProofError | None = None
    tag: Tag = field(default_factory=Tag.new)
    seed: int | None = None
    deltas: list[list[int]] | None = None
    """Tokens of the choices so far, where outputs have what is new alone."""
    left: int = 0
    """Choices whose hidden states the worker holds."""
    internal_id: str = ""
    digest: PromptDigest | None = None


class Calls:
    """All that are in the engine, by the id that they were given.

    Args:
        secret: the tags' key.
        slots: captures that the worker holds at once.
        seed_requests: draw a seed where a sampled request has none.
    """

    def __init__(
        self, background: Background, channel: Channel, served: Served, secret: str, slots: int, *, seed_requests: bool
    ) -> None:
        self._background = background
        self._channel = channel
        self._served = served
        self._secret = secret
        self._slots = slots
        self._seed_requests = seed_requests
        self._calls: dict[str, Call] = {}
        self._held = 0

    def has_room(self, n: int) -> bool:
        """Whether the worker can hold as many more captures; always, if it holds none."""
        return not self._held or self._held + n <= self._slots

    def tag(
        self, request_id: str, prompt: Any, params: SamplingParams, lora_request: LoRARequest | None
    ) -> SamplingParams:
        """The parameters to hand to the engine. `add` is to follow."""
        refusal = _refusal(prompt)
        call = Call(lora_request.lora_name if lora_request else self._served.model, params.n, refusal)
        self._calls[request_id] = call
        if refusal is not None:
            return without_tag(params)
        call.tag = Tag.new(children=params.n)
        tagged = with_tag(params, call.tag, self._secret, seed_requests=self._seed_requests)
        call.seed = seed_of(tagged, self._served.sampler)
        if tagged.output_kind is RequestOutputKind.DELTA:
            call.deltas = [[] for _ in range(params.n)]
        return tagged

    def add(self, request_id: str, internal_id: str) -> None:
        """The engine has the request, under this id of its own; empty if it refused it."""
        call = self._calls[request_id]
        if not internal_id:
            del self._calls[request_id]
        else:
            call.internal_id = internal_id
            call.left = 0 if call.refusal else call.n
            self._held += call.left

    def drop(self, ids: Iterable[str]) -> set[str]:
        """Forgets requests that were aborted, by either id; the ids that they were given."""
        gone = set(ids)
        dropped = {name for name, call in self._calls.items() if name in gone or call.internal_id in gone}
        for name in dropped:
            call = self._calls.pop(name)
            self._held -= call.left
            if call.left:
                self._background.submit(self._channel.discard(call.tag.nonce, range(call.n)))
        return dropped

    def forget(self, outputs: Iterable[Any]) -> None:
        """Those of requests that are over have been given out."""
        for output in outputs:
            if output.finished:
                self._calls.pop(output.request_id, None)

    def prove(self, outputs: Iterable[Any]) -> None:
        """Puts `toploc_proofs` on every choice that has ended."""
        ended: list[tuple[Call, CompletionOutput, Sequence[int], Sequence[int]]] = []
        for output in outputs:
            call = self._calls.get(output.request_id)
            if call is None:
                continue
            prompt = output.prompt_token_ids or ()
            for choice in output.outputs:
                if call.deltas is not None:
                    call.deltas[choice.index] += choice.token_ids
                if choice.finish_reason is not None and not hasattr(choice, "toploc_proofs"):
                    generated = list(choice.token_ids) if call.deltas is None else call.deltas[choice.index]
                    ended.append((call, choice, prompt, generated))
        if ended:
            proven = self._background.run(self._all_proofs(ended))
            for (_, choice, _, _), field_of in zip(ended, proven, strict=True):
                choice.toploc_proofs = field_of

    async def _all_proofs(
        self, ended: Sequence[tuple[Call, CompletionOutput, Sequence[int], Sequence[int]]]
    ) -> list[ToplocProofs]:
        return await asyncio.gather(*(self._proofs(*one) for one in ended))

    async def _proofs(
        self, call: Call, choice: CompletionOutput, prompt: Sequence[int], generated: Sequence[int]
    ) -> ToplocProofs:
        if call.refusal is not None:
            return self._without(call, call.refusal)
        try:
            found = await self._fetch(call, choice, inputs_of(prompt, generated))
        except ProofUnavailable as error:
            logger.warning("toploc: no proofs: %s: %s", error.code, error)
            return self._without(call, to_error(error))
        finally:
            call.left -= 1
            self._held -= 1
        call.digest = call.digest or PromptDigest.of(prompt)
        seed = seed_of_choice(call.seed, choice.index)
        return ToplocProofs(
            dtype=self._served.dtype,
            rounded_from=self._served.rounded_from,
            model=call.model,
            engine=self._served.engine,
            sampler=self._served.sampler if seed is not None else None,
            prompt=call.digest,
            choices=(choice_proofs(0, generated, found, seed),),
        )

    async def _fetch(self, call: Call, choice: CompletionOutput, inputs: list[int]) -> Proofs:
        if choice.finish_reason in UNPROVEN:
            in_background(self._channel.discard(call.tag.nonce, [choice.index]))
            raise ProofUnavailable("aborted", "the generation was aborted before its end")
        return await self._channel.finalize(call.tag.nonce, choice.index, inputs)

    def _without(self, call: Call, error: ProofError) -> ToplocProofs:
        return ToplocProofs(
            dtype=self._served.dtype, rounded_from=self._served.rounded_from, model=call.model, error=error
        )


def _refusal(prompt: Any) -> ProofError | None:
    if not isinstance(prompt, dict) or "type" not in prompt:
        return UNTAGGED
    kind = prompt["type"]
    if kind in UNPROVABLE_PROMPTS:
        return ProofError(code="unsupported_prompt", message=f"{UNPROVABLE_PROMPTS[kind]} cannot be proven")
    return None
