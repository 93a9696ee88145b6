"""The response that a stream's events add up to: what a receipt of a stream is about, and a rehearsal compares.

Each event costs what it carries, however long the stream.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

OBJECTS: Final = {"chat.completion.chunk": "chat.completion", "text_completion": "text_completion"}
"""What a response is called whose events are called so."""

FINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Events of /v1/responses that carry the whole."""

LAST: Final = frozenset({"usage", "system_fingerprint", "service_tier", "metrics"})
"""Fields of a chunk of which the last counts; of others it is the first."""

ONCE: Final = frozenset({"index", "type"})
"""Fields of a part that say which it is, and that no later event adds to."""

BLOCKS: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
"""Of what kind of change to a message's block which field is text to be put together."""


UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What events raise that are none of a server's."""


class Assembly:
    """Takes the events of one stream, of any route."""

    def __init__(self) -> None:
        self._response: Json | None = None
        self._choices: dict[int, Json] = {}
        self._blocks: dict[int, Json] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Events of other kinds say nothing.

        Raises:
            `UNREADABLE`: the event is none of a server's.
        """
        kind = event.get("type")
        if kind is None:
            self._add_chunk(event)
        elif kind in FINAL:
            self._response = dict(event["response"])
        elif not str(kind).startswith("response."):
            self._add_part(str(kind), event)

    def response(self, choice: int | None = None) -> Json | None:
        """With all choices, or that one; None if the events make none."""
        if self._response is None:
            return None
        made = {**self._response}
        if self._choices:
            listed = sorted(self._choices) if choice is None else [choice] if choice in self._choices else []
            made["choices"] = [_written(self._choices[index]) for index in listed]
        if self._blocks:
            made["content"] = [_block(block) for _, block in sorted(self._blocks.items())]
        return made

    def _add_chunk(self, event: Mapping[str, Any]) -> None:
        """Of a chat completion or a completion."""
        if self._response is None:
            if event.get("object") not in OBJECTS and not _is_of_tokens(event):
                return
            self._response = {"choices": []}
        for name, value in event.items():
            if name == "object":
                self._response[name] = OBJECTS.get(value, value)
            elif name != "choices" and value is not None and (name in LAST or name not in self._response):
                self._response[name] = value
        for part in event.get("choices") or ():
            choice = self._choices.setdefault(int(part["index"]), {"index": part["index"]})
            for name, value in part.items():
                if name == "delta":
                    _merge(choice.setdefault("message", {}), value or {})
                elif name == "text":
                    choice.setdefault(name, _Text()).parts.append(value or "")
                elif isinstance(value, dict) and isinstance(choice.get(name), dict):
                    _extend(choice[name], value)
                elif isinstance(value, list) and isinstance(choice.get(name), list):
                    choice[name] += value
                elif value is not None or name not in choice:
                    choice[name] = _own(value)

    def _add_part(self, kind: str, event: Mapping[str, Any]) -> None:
        """Of a message of /v1/messages."""
        if kind == "message_start":
            self._response = dict(event["message"])
        elif kind == "content_block_start":
            self._blocks[int(event["index"])] = {
                name: _Text([value]) if name in BLOCKS.values() and isinstance(value, str) else value
                for name, value in event["content_block"].items()
            }
        elif kind == "content_block_delta":
            block, delta = self._blocks[int(event["index"])], event["delta"]
            if delta["type"] == "input_json_delta":
                block.setdefault("partial_json", _Text()).parts.append(delta["partial_json"])
            elif (name := BLOCKS.get(delta["type"])) is not None:
                if not isinstance(block.get(name), _Text):
                    block[name] = _Text()
                block[name].parts.append(delta[name])
            else:
                _extend(block, {name: value for name, value in delta.items() if name != "type"})
        elif kind == "message_delta" and self._response is not None:
            for name, value in {**event.get("delta", {}), "usage": event.get("usage")}.items():
                if isinstance(value, dict) and isinstance(self._response.get(name), dict):
                    self._response[name] = {**self._response[name], **value}
                elif value is not None:
                    self._response[name] = value


def _is_of_tokens(event: Mapping[str, Any]) -> bool:
    """Whether an event is one of `/inference/v1/generate`, which has no name for itself."""
    return "object" not in event and "request_id" in event and "choices" in event


class _Text:
    """A text that is put together once, at the end."""

    def __init__(self, parts: list[str] | None = None) -> None:
        self.parts = parts or []

    def __str__(self) -> str:
        return "".join(self.parts)


def _merge(whole: Json, delta: Mapping[str, Any]) -> None:
    """Add a delta, by the rule of OpenAI's SDK: texts are put together, parts of lists go by their `index`."""
    for name, value in delta.items():
        known = whole.get(name)
        if name in ONCE or value is None:
            whole.setdefault(name, value)
            if value is not None:
                whole[name] = value
        elif isinstance(value, str):
            if isinstance(known, _Text):
                known.parts.append(value)
            else:
                whole[name] = _Text([value])
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = whole[name] = {}
            _merge(known, value)
        elif isinstance(value, list):
            if not isinstance(known, list):
                known = whole[name] = []
            for entry in value:
                place = entry.get("index") if isinstance(entry, dict) else None
                if place is None:
                    known.append(entry)
                    continue
                part = next((item for item in known if isinstance(item, dict) and item.get("index") == place), None)
                if part is None:
                    part = {}
                    known.append(part)
                _merge(part, entry)
        else:
            whole[name] = value


def _extend(whole: Json, more: Mapping[str, Any]) -> None:
    """Add to the lists of an object, log-probabilities for one; other values are replaced."""
    for name, value in more.items():
        if isinstance(value, list) and isinstance(whole.get(name), list):
            whole[name] += value
        elif value is not None or name not in whole:
            whole[name] = value


def _own(value: Any) -> Any:
    """With lists that may be added to, and are not the event's."""
    if isinstance(value, dict):
        return {name: [*item] if isinstance(item, list) else item for name, item in value.items()}
    return [*value] if isinstance(value, list) else value


def _block(block: Json) -> Json:
    made: Json = _written(block)
    if "partial_json" in made:
        made["input"] = json.loads(made.pop("partial_json") or "{}")
    return made


def _written(value: Any) -> Any:
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, dict):
        return {name: _written(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return value
