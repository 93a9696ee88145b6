"""What a stream has said of each choice, for the receipt that its last event carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ..asgi.sse import event_json

FOLD: Final = 256
"""Messages that are kept before they are read: bounds the memory of a stream to what it says and some 64 KB."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(msgspec.Struct):
    index: int
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCallDelta] | None = None


class _ChoiceDelta(msgspec.Struct):
    index: int
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Block(msgspec.Struct):
    """The start of a content block, a change to it, or the end of the message."""

    type: str | None = None
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    """A part of a completion, or an event of /v1/messages, which has a `type`."""

    choices: list[_ChoiceDelta] = []
    type: str | None = None
    index: int = 0
    content_block: _Block | None = None
    delta: _Block | str | None = None


UNREADABLE: Final = (ValueError, RecursionError)
"""Strings that are not UTF-8 and nesting beyond the recursion limit raise errors that are not msgspec's."""

_DECODER = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class _ToolCall:
    id: str | None = None
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, _ToolCall] = field(default_factory=dict)
    finish_reason: str | None = None


class Delivered:
    """Puts the events of a chat completion, completion or message together, as a client does.

    A message costs an append as it passes; it is read with many others, or when a choice ends.
    """

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._rest = b""
        self._choices: dict[int, _Choice] = {}
        self._readable = True
        self._is_message = False

    def keep(self, data: bytes) -> None:
        if self._readable:
            self._kept.append(data)
            if len(self._kept) >= FOLD:
                self._fold()

    def choice(self, index: int) -> dict[str, Any]:
        """The choice as `choices` of a response that is no stream has it; nothing if the events are of another kind."""
        self._fold()
        choice = self._choices.get(index)
        if choice is None or not self._readable:
            return {}
        calls = [
            {"id": call.id, "name": call.name, "arguments": self._arguments("".join(call.arguments))}
            for _, call in sorted(choice.calls.items())
        ]
        message = {"content": "".join(choice.text), "reasoning": "".join(choice.reasoning), "tool_calls": calls}
        return {"index": index, "finish_reason": choice.finish_reason, "message": message}

    def _arguments(self, text: str) -> Any:
        """A message that is no stream has them as an object."""
        return msgspec.json.decode(text or "{}") if self._is_message else text

    def _fold(self) -> None:
        data, self._kept = (self._rest + b"".join(self._kept)).replace(b"\r\n", b"\n"), []
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            document = event[6:] if event.startswith(b"data: {") else event_json(event)
            if document is not None:
                try:
                    self._add(_DECODER.decode(document))
                except UNREADABLE:
                    self._readable = False

    def _add(self, event: _Event) -> None:
        if event.type is not None:
            self._add_block(event)
        for part in event.choices:
            choice = self._choices.get(part.index)
            if choice is None:
                choice = self._choices[part.index] = _Choice()
            delta = part.delta
            text = part.text if delta is None else delta.content
            if text:
                choice.text.append(text)
            if delta is not None and (delta.reasoning or delta.reasoning_content):
                choice.reasoning.append(delta.reasoning or delta.reasoning_content or "")
            if delta is not None and delta.tool_calls:
                _add_calls(choice, delta.tool_calls)
            if part.finish_reason:
                choice.finish_reason = part.finish_reason

    def _add_block(self, event: _Event) -> None:
        """A message is choice 0, and its blocks of tool use are calls. Events of /v1/responses are not read: the last
        one has the whole. Nor are Cohere's, whose names have dashes."""
        if event.type is None or event.type.startswith("response.") or "-" in event.type:
            self._readable = False
            return
        self._is_message = True
        choice = self._choices.setdefault(0, _Choice())
        block = event.content_block or event.delta
        if not isinstance(block, _Block):
            return
        choice.text.append(block.text or "")
        choice.reasoning.append(block.thinking or "")
        choice.finish_reason = block.stop_reason or choice.finish_reason
        if block.type == "tool_use":
            choice.calls[event.index] = _ToolCall(block.id, block.name or "")
        elif block.partial_json and event.index in choice.calls:
            choice.calls[event.index].arguments.append(block.partial_json)


def _add_calls(choice: _Choice, deltas: list[_ToolCallDelta]) -> None:
    for delta in deltas:
        call = choice.calls.setdefault(delta.index, _ToolCall())
        function = delta.function or _Function()
        call.id = call.id or delta.id
        call.name += function.name or ""
        call.arguments.append(function.arguments or "")
