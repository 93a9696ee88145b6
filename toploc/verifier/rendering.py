"""Prompts of requests as token ids, by a model's tokenizer and chat template: for verifiers that have no routes."""

from __future__ import annotations

import inspect
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..checks.prompt import matching_prompt
from ..errors import MalformedEvidence
from .judge import not_computable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..evidence.evidence import Answer, Evidence
    from ..report import Check

RENDERING: Final = frozenset({"tools", "documents", "add_generation_prompt", "continue_final_message"})
"""What a request may set of the tokenizer's own options; `chat_template_kwargs` must not reach the others."""


def prompt_of(evidence: Evidence, answer: Answer, tokenizer: Any) -> Sequence[int] | Check:
    """The token ids of a choice's prompt, or the check that says why there are none.

    1. The prompt is text alone.
    2. Of all that a server may have made of it, it is what the answer's digest is of; else the likeliest.

    `tokenizer`: of transformers.
    """
    if answer.prompt.media is not None:  # 1
        message = "the prompt has images, audio or video, which this verifier cannot read; a server can"
        return not_computable(answer, "prompt", "media", message)
    rendered: list[list[int]] = []  # 2
    problem = "it is not plain messages, has a template of its own, or is empty"
    for render in _renderings(evidence, answer, tokenizer):
        try:
            rendered.append(_truncated(render(), evidence.request.truncate_prompt_tokens))
        except Exception as error:
            # A template is a program of the model's that runs on foreign input: it may raise anything.
            problem = f"{type(error).__name__}: {str(error)[:200]}"
    if not rendered or not rendered[0]:
        message = f"the prompt cannot be rendered here: {problem}"
        return not_computable(answer, "prompt", "unrenderable", message)
    return matching_prompt(answer, rendered)


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
    """A chat's prompt as token ids, by the model's own chat template.

    `template`: `tools`, `documents`, and whatever a request has in `chat_template_kwargs`.
    """
    options = {"add_generation_prompt": True, **template, "tokenize": True, "return_dict": False}
    return [int(i) for i in tokenizer.apply_chat_template(list(messages), **options)]


def _renderings(evidence: Evidence, answer: Answer, tokenizer: Any) -> Iterator[Callable[[], list[int]]]:
    """What a server may have made of the request's prompt, as token ids, the likeliest first."""
    request = evidence.chat
    if request is None and evidence.renderable:
        yield partial(_completion_prompt, evidence, answer, tokenizer)
    elif request is not None and evidence.renderable and request.chat_template is None:
        template: dict[str, Any] = dict(request.chat_template_kwargs or {})
        for name in (*sorted(RENDERING), "reasoning_effort"):
            value = getattr(request, name)
            if value is not None:
                template[name] = value
        for spell in (_joined, dict):
            yield partial(_chat_prompt, tokenizer, evidence.messages_of(answer), spell, template)
            if request.tool_choice == "none" and request.tools:
                yield partial(_chat_prompt, tokenizer, evidence.messages_of(answer), spell, {**template, "tools": None})


def _completion_prompt(evidence: Evidence, answer: Answer, tokenizer: Any) -> list[int]:
    prompt = evidence.prompt_of(answer)
    if not isinstance(prompt, str):
        return list(prompt)
    special = evidence.request.add_special_tokens is not False
    return [int(i) for i in tokenizer(prompt, add_special_tokens=special)["input_ids"]]


def _chat_prompt(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    spell: Callable[[dict[str, Any]], dict[str, Any]],
    template: Any,
) -> list[int]:
    """Messages as vLLM hands them to a template: arguments of calls are objects."""
    if clash := template.keys() & _own_options(tokenizer) - RENDERING:
        raise MalformedEvidence("request.chat_template_kwargs", f"{min(clash)} is no option of a template")
    return render(tokenizer, [_with_arguments(spell(message)) for message in messages], **template)


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
