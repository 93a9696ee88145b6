"""What one answer shows by itself: how it counts, where it ends, and whether its tool calls can be acted on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]
from referencing import Registry

from toploc.evidence.tokenised import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .asking import Reply

REASONS: Final = ("stop", "length", "tool_calls", "function_call", "content_filter")
"""To end, as OpenAI names them."""

MARKS: Final = ("<tool_call>", "<|tool_call", "<function=", "[TOOL_CALLS]", "<|python_tag|>", "tool_calls_section")
"""Of calls in the models' own words. In a text they are what a parser has missed."""

CHECKS: Final = ("answered", "usage", "finish", "tools", "stream")


@dataclass(frozen=True, slots=True)
class Problem:
    """`check` is one of `CHECKS`; `reason` is stable, and stands in docs/audit.md."""

    check: str
    reason: str
    message: str


@dataclass(slots=True)
class Finding:
    """Of one answer. Tokens are what `usage` says, and what the claimed model's tokenizer counts; None if unknown.

    `calls`: tool calls; `readable`, `valid`: of these, how many have arguments in JSON, and ones of their schema.
    """

    key: str
    problems: list[Problem] = field(default_factory=list)
    said_prompt: int | None = None
    said_completion: int | None = None
    own_prompt: int | None = None
    own_completion: int | None = None
    has_tools: bool = False
    calls: int = 0
    readable: int = 0
    valid: int = 0

    def add(self, check: str, reason: str, message: str) -> None:
        self.problems.append(Problem(check, reason, message))


@dataclass(frozen=True, slots=True)
class Counts:
    """Of tokens by the claimed model's tokenizer: of the prompt, and of the text without its end."""

    prompt: int | None = None
    completion: int | None = None


def look(reply: Reply, counts: Counts) -> Finding:
    """Of one reply.

    1. answered: a response came.
    2. usage: it is there, adds up, and counts as the model's tokenizer does. One token more is the end's.
    3. finish: the reason is one there is, fits the length, and goes with tool calls.
    4. tools: each call names a tool of the request, and its arguments are JSON of its schema.

    Reasons: `no_answer`; `missing`, `malformed`, `sum`, `prompt`, `completion`; `choices`, `reason`, `too_long`,
    `cut_short`, `empty`, `unended`, `no_call`, `not_said`; `form`, `unknown_tool`, `json`, `schema`, `leaked`.
    """
    finding = Finding(reply.key, own_prompt=counts.prompt, own_completion=counts.completion)
    finding.has_tools = bool(reply.request.get("tools"))
    if reply.response is None:  # 1
        finding.add("answered", "no_answer", reply.problem)
        return finding
    _usage(finding, reply.response.get("usage"))  # 2
    choices = reply.response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        finding.add("finish", "choices", "it has no choice with a message")
        return finding
    calls = message.get("tool_calls") or []
    _finish(finding, reply, choice.get("finish_reason"), has_calls=bool(calls), text=message.get("content"))  # 3
    _tools(finding, reply.request, calls, message.get("content"))  # 4
    return finding


def text_of(response: Mapping[str, Any] | None) -> str | None:
    """The text of a response that is all of its tokens'; None where parts stand in other fields, or are none."""
    try:
        message = response["choices"][0]["message"]  # type: ignore[index]
        elsewhere = ("tool_calls", "function_call", "reasoning", "reasoning_content", "refusal")
        text = message["content"]
        return text if isinstance(text, str) and not any(message.get(name) for name in elsewhere) else None
    except (LookupError, TypeError, AttributeError):
        return None


def _usage(finding: Finding, usage: object) -> None:
    if not isinstance(usage, dict):
        finding.add("usage", "missing", "it has no `usage`")
        return
    prompt, completion = counted(usage, ("prompt_tokens",)), counted(usage, ("completion_tokens",))
    total = counted(usage, ("total_tokens",))
    finding.said_prompt, finding.said_completion = prompt, completion
    if prompt is None or completion is None:
        finding.add("usage", "malformed", "`usage` does not count prompt and completion")
        return
    if total is not None and total != prompt + completion:
        finding.add("usage", "sum", f"{prompt} and {completion} tokens are not {total}")
    if finding.own_prompt is not None and prompt != finding.own_prompt:
        finding.add("usage", "prompt", f"{prompt} tokens of the prompt, which has {finding.own_prompt}")
    own = finding.own_completion
    if own is not None and completion not in (own, own + 1):
        finding.add("usage", "completion", f"{completion} tokens of a text that has {own}")


def _finish(finding: Finding, reply: Reply, reason: object, *, has_calls: bool, text: object) -> None:
    limit = next((reply.request[n] for n in ("max_completion_tokens", "max_tokens") if n in reply.request), None)
    most = limit if isinstance(limit, int) else None
    said = finding.said_completion
    if reason not in REASONS:
        finding.add("finish", "reason", f"it ends by {str(reason)[:40]!r}, which is no reason")
    if most is not None and said is not None and said > most:
        finding.add("finish", "too_long", f"{said} tokens, at most {most} were asked for")
    if reason == "length" and most is not None and said is not None and said < most:
        finding.add("finish", "cut_short", f"it ends by length after {said} tokens, {most} were asked for")
    if not has_calls and not text and reason != "content_filter":
        finding.add("finish", "empty", "it says nothing")
    if reason in ("tool_calls", "function_call") and not has_calls:
        finding.add("finish", "no_call", "it ends with a tool call, and has none")
    if has_calls and reason not in ("tool_calls", "function_call", "length"):
        finding.add("finish", "not_said", f"it has a tool call, and ends by {str(reason)[:40]!r}")
    if not reply.done:
        finding.add("finish", "unended", "its stream did not end with [DONE]")


def _tools(finding: Finding, request: Mapping[str, Any], calls: object, text: object) -> None:
    if isinstance(text, str) and finding.has_tools and any(mark in text for mark in MARKS):
        finding.add("tools", "leaked", "its text has a call in the model's own words")
    if not isinstance(calls, list):
        finding.add("tools", "form", "`tool_calls` is no list")
        return
    schemas = dict(_schemas(request))
    for call in calls:
        finding.calls += 1
        problem = _wrong_with(call, schemas)
        if problem is None or problem[0] != "form":
            finding.readable += problem is None or problem[0] != "json"
        finding.valid += problem is None
        if problem is not None:
            finding.add("tools", *problem)


def _wrong_with(call: Any, schemas: Mapping[str, Any]) -> tuple[str, str] | None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(call.get("id"), str) or not call["id"]:
        return "form", "a tool call has no `function` or no `id`"
    name, arguments = function.get("name"), function.get("arguments")
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return "json", f"the arguments of {str(name)[:40]!r} are no JSON object"
    if not isinstance(name, str) or name not in schemas:
        return "unknown_tool", f"it calls {str(name)[:40]!r}, which is no tool of the request"
    try:
        Draft202012Validator(schemas[name], registry=Registry()).validate(value)
    except ValidationError as error:
        return "schema", f"the arguments of {name[:40]!r}: {error.message[:200]}"
    except Exception:
        # The request's own schema is none. What jsonschema raises for that has no root of its own.
        return None
    return None


def _schemas(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for tool in request.get("tools") or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function["name"], function.get("parameters") or {}
