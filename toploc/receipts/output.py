"""What a response says, in the form that a receipt signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shown_in(response: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """What a client is shown of a choice, in the form of `choices` of a chat completion; nothing of another route.

    A response of /v1/responses is shown as one, whatever turns it took, and so is a message of /v1/messages.
    """
    if response.get("object") == "response":
        return _of_response(response)
    if response.get("type") == "message":
        return _of_message(response)
    choices = _objects(response.get("choices"))
    return next((choice for choice in choices if choice.get("index") == index), {})


def _of_response(response: Mapping[str, Any]) -> Mapping[str, Any]:
    items = _objects(response.get("output"))
    texts, thoughts = (
        [
            part.get("text")
            for item in items
            if item.get("type") == kind
            for name in names
            for part in _objects(item.get(name))
        ]
        for kind, names in (("message", ("content",)), ("reasoning", ("summary", "content")))
    )
    calls = [{**item, "id": item.get("call_id")} for item in items if item.get("type") == "function_call"]
    cut = response.get("incomplete_details")
    reason = cut.get("reason") if isinstance(cut, Mapping) else response.get("status")
    return _choice(reason, texts, thoughts, calls)


def _of_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = _objects(message.get("content"))
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    thoughts = [part.get("thinking") for part in parts if part.get("type") == "thinking"]
    calls = [{**part, "arguments": part.get("input")} for part in parts if part.get("type") == "tool_use"]
    return _choice(message.get("stop_reason"), texts, thoughts, calls)


def _choice(reason: object, texts: list[Any], thoughts: list[Any], calls: list[Any]) -> Mapping[str, Any]:
    content, reasoning = ("".join(str(text) for text in listed if text) for listed in (texts, thoughts))
    message = {"content": content, "reasoning": reasoning, "tool_calls": calls}
    return {"finish_reason": reason, "message": message}


def output_of(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a client is shown of a choice, without nulls and what SDKs add; None for what is no choice."""
    message = choice.get("message", choice)
    if not isinstance(message, Mapping) or not message.keys() & {"content", "text", "reasoning", "tool_calls"}:
        return None
    output: dict[str, Any] = {"text": message.get("content", message.get("text")) or ""}
    if reasoning := message.get("reasoning") or message.get("reasoning_content"):
        output["reasoning"] = reasoning
    calls = [*_list(message.get("tool_calls")), *filter(None, [message.get("function_call")])]
    if calls:
        output["tool_calls"] = [_call(call) for call in calls]
    return output


def _call(call: object) -> object:
    if not isinstance(call, Mapping):
        return call
    function = call.get("function", call)
    fields = {"id": call.get("id")}
    if isinstance(function, Mapping):
        fields |= {"name": function.get("name"), "arguments": function.get("arguments")}
    return {name: value for name, value in fields.items() if value is not None}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _list(value) if isinstance(item, Mapping)]


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
