"""A verifier without vLLM: one prefill by Hugging Face transformers for each choice, and the checks on it."""

from __future__ import annotations

import inspect
import json
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..checks.prompt import matching_prompt, reads_clock
from ..errors import InvalidActivations, MalformedEvidence
from ..evidence.parse import parse_evidence
from ..proofs.chunks import proof_dtype, state_points
from ..report import Check, Report, malformed
from ..scheme import TOPK
from ..thresholds.bounds import Thresholds
from ..tokens.scoring import score_tokens
from .judge import Computed, Policy, beyond_the_model, judge, not_computable
from .prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ..evidence.evidence import Answer, Evidence
    from ..receipts.keys import PublicKey

RENDERING: Final = frozenset({"tools", "documents", "add_generation_prompt", "continue_final_message"})
"""What a request may set of the tokenizer's own options; `chat_template_kwargs` must not reach the others."""


class TransformersVerifier:
    """Judges evidence by a model on this machine.

    Args:
        model: a local path or a hub name, or a prefill that is already there.
        names: all that the model is served under. Without any, answers under every name are held against it, and the
            report says which name that is.
        thresholds: the paper's for the dtype of the model's states by default.
        context_length: of the server, if it is known.
        trusted_keys: of the providers whose receipts count.
        scored: whether the check on tokens is done; without, it is skipped, and no logits are computed.
    """

    def __init__(
        self,
        model: str | Path | TransformersPrefill,
        *,
        names: Sequence[str] = (),
        thresholds: Thresholds | None = None,
        context_length: int | None = None,
        trusted_keys: Sequence[PublicKey] = (),
        scored: bool = True,
    ) -> None:
        self._scored = scored
        self.prefill = model if isinstance(model, TransformersPrefill) else TransformersPrefill(model)
        tokenizer = self.prefill.tokenizer
        self.policy = Policy(
            names=tuple(names),
            thresholds=thresholds or Thresholds.paper(self.prefill.proof_dtype),
            decode=lambda token_ids, skip: tokenizer.decode(
                list(token_ids), skip_special_tokens=skip, clean_up_tokenization_spaces=False
            ),
            eos_token_ids=self.prefill.eos_token_ids,
            context_length=context_length,
            secret=secrets.token_bytes(16),
            trusted_keys=trusted_keys,
            clock=reads_clock(tokenizer.chat_template),
            engine=self.prefill.engine,
        )

    def verify(self, data: bytes | str) -> Report:
        """The report on a JSON object of evidence; on what is none, a report of that."""
        try:
            evidence = parse_evidence(data, self.prefill.sampling_defaults)
        except MalformedEvidence as error:
            return malformed("malformed", str(error), error.field)
        return self.judge(evidence)

    def judge(self, evidence: Evidence) -> Report:
        """The report on parsed evidence."""
        computed = [self.compute(evidence, answer) for answer in evidence.answers]
        names = tuple(self.policy.names)
        return judge(evidence.under_one_name(names) if names else evidence, self.policy, computed)

    def compute(self, evidence: Evidence, answer: Answer) -> Computed | Check:
        """What the checks need of one choice, or why there is nothing.

        0. The prompt is text alone.
        1. Render the request's prompt.
        2. The model can be run over prompt and answer (`beyond_the_model`).
        3. One forward pass; top-k of its states, and the scores of its logits.
        """
        if answer.prompt.media is not None:  # 0
            message = "the prompt has images, audio or video, which this verifier cannot read; a server can"
            return not_computable(answer, "prompt", "media", message)
        rendered: list[list[int]] = []  # 1
        problem = "it is not plain messages, has a template of its own, or is empty"
        for render in self._renderings(evidence, answer):
            try:
                rendered.append(_truncated(render(), evidence.request.truncate_prompt_tokens))
            except Exception as error:
                # A template is a program of the model's that runs on foreign input: it may raise anything.
                problem = f"{type(error).__name__}: {str(error)[:200]}"
        if not rendered or not rendered[0]:
            message = f"the prompt cannot be rendered here: {problem}"
            return not_computable(answer, "prompt", "unrenderable", message)
        prompt, token_ids = matching_prompt(answer, rendered), answer.token_ids
        beyond = beyond_the_model(  # 2
            answer, prompt, vocab_size=self.prefill.vocab_size, context_length=self.prefill.context_length
        )
        if beyond is not None:
            return beyond
        states = self.prefill.states(prompt, token_ids)  # 3
        try:
            points = state_points(states, TOPK)
        except InvalidActivations as error:
            return not_computable(answer, "proofs", "activations_invalid", str(error))
        scores = None
        sampling = evidence.sampling_of(answer)
        if self._scored and self.prefill.has_logits and not sampling.other:
            logits = self.prefill.logits(states)
            scores = score_tokens(logits, prompt, token_ids, sampling, self.prefill.eos_token_ids)
        return Computed(tuple(prompt), points, proof_dtype(states)[0], scores)

    def _renderings(self, evidence: Evidence, answer: Answer) -> Iterator[Callable[[], list[int]]]:
        """What a server may have made of the request's prompt, as token ids, the likeliest first."""
        request = evidence.chat
        if request is None and evidence.renderable:
            yield partial(self._completion_prompt, evidence, answer)
        elif request is not None and evidence.renderable and request.chat_template is None:
            template: dict[str, Any] = dict(request.chat_template_kwargs or {})
            for name in (*sorted(RENDERING), "reasoning_effort"):
                value = getattr(request, name)
                if value is not None:
                    template[name] = value
            for spell in (_joined, dict):
                yield partial(self._chat_prompt, evidence.messages_of(answer), spell, template)
                if request.tool_choice == "none" and request.tools:
                    yield partial(self._chat_prompt, evidence.messages_of(answer), spell, {**template, "tools": None})

    def _completion_prompt(self, evidence: Evidence, answer: Answer) -> list[int]:
        prompt = evidence.prompt_of(answer)
        if not isinstance(prompt, str):
            return list(prompt)
        special = evidence.request.add_special_tokens is not False
        return [int(i) for i in self.prefill.tokenizer(prompt, add_special_tokens=special)["input_ids"]]

    def _chat_prompt(
        self, messages: Sequence[dict[str, Any]], spell: Callable[[dict[str, Any]], dict[str, Any]], template: Any
    ) -> list[int]:
        """Messages as vLLM hands them to a template: arguments of calls are objects."""
        if clash := template.keys() & _own_options(self.prefill.tokenizer) - RENDERING:
            raise MalformedEvidence("request.chat_template_kwargs", f"{min(clash)} is no option of a template")
        return self.prefill.render([_with_arguments(spell(message)) for message in messages], **template)


def _truncated(prompt: list[int], tokens: int | None) -> list[int]:
    """The last `tokens`, as vLLM cuts prompts (vllm/renderers/params.py); -1 is as many as the server's context has."""
    return prompt if tokens is None or tokens < 1 else prompt[-tokens:]


def _own_options(tokenizer: Any) -> set[str]:
    return set(inspect.signature(tokenizer.apply_chat_template).parameters)


def _with_arguments(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_parsed_call(call) for call in calls]}


def _parsed_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": json.loads(function["arguments"] or "{}")}}


def _joined(message: dict[str, Any]) -> dict[str, Any]:
    """Text in parts as one text, where the template does not take lists."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise MalformedEvidence("request.messages", "content that is not text cannot be verified here")
    return {**message, "content": "\n".join(part["text"] for part in content)}
