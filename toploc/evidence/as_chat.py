"""Requests and responses of `/v1/responses` and `/v1/messages` in the form of a chat, which the checks read.

Only what the checks need is carried over. Where a prompt is not plain messages of text, it is not put into that form:
then only the server's own route can render it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from ..receipts.output import said_in_blocks, said_in_items

Json = dict[str, Any]
Limit = Annotated[int, Field(ge=0, lt=2**32)]

RESPONSE_PROMPT: Final = frozenset(
    """background include input instructions max_output_tokens max_tool_calls metadata previous_response_id prompt
    prompt_cache_key reasoning text tools truncation""".split()  # noqa: SIM905
)
"""Options of `/v1/responses` that change the prompt, the length or nothing; the others keep their names in a chat."""

MESSAGE_PROMPT: Final = frozenset(
    ("max_tokens", "messages", "metadata", "stop_sequences", "system", "thinking", "tools")
)
"""Those of `/v1/messages`."""

STOP_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
}
"""What a chat calls the reasons of a message to stop."""

MAX_TURNS: Final = 32
"""Each is rendered with all that came before it. Stops small bodies that ask for thousands of long prompts."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class ResponseRequest(_Strict):
    """Of `/v1/responses`, as far as it is read here."""

    input: str | list[Json] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: Limit | None = None
    tools: list[Json] | None = None
    text: Json | None = None
    previous_response_id: str | None = None
    conversation: str | Json | None = None
    prompt: Json | None = None
    """As the two above: what the model is given before the input, which only the server has."""

    def chat(self, body: Json) -> Json:
        kept = {name: value for name, value in body.items() if name not in RESPONSE_PROMPT}
        form = (self.text or {}).get("format")
        if form not in (None, {"type": "text"}):
            kept["response_format"] = form
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        given = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        tools = [{"type": "function", "function": _without(tool, "type")} for tool in self.tools or ()]
        return {**kept, "messages": [*system, *given], "max_tokens": self.max_output_tokens, "tools": tools or None}

    @property
    def renderable(self) -> bool:
        """Whether the messages are a chat's as they stand."""
        plain = isinstance(self.input, str) or all(_is_plain(item) for item in self.input)
        elsewhere = self.previous_response_id or self.conversation or self.prompt
        return plain and not elsewhere and all(tool.get("type") == "function" for tool in self.tools or ())


class MessageRequest(_Strict):
    """Of `/v1/messages`, as far as it is read here."""

    messages: list[Json] = Field(min_length=1)
    max_tokens: Limit
    system: str | list[Json] | None = None
    stop_sequences: list[str] | None = None
    tools: list[Json] | None = None
    tool_choice: Json | None = None
    thinking: Json | None = None

    def chat(self, body: Json) -> Json:
        kept = {name: value for name, value in body.items() if name not in MESSAGE_PROMPT}
        if self.tool_choice in ({"type": "auto"}, {"type": "none"}):
            kept["tool_choice"] = self.tool_choice["type"] if self.tool_choice else None
        system = [{"role": "system", "content": self.system}] if self.system else []
        tools = [
            {
                "type": "function",
                "function": {
                    "name": tool.get("name"),
                    "description": tool.get("description"),
                    "parameters": tool.get("input_schema"),
                },
            }
            for tool in self.tools or ()
        ]
        return {
            **kept,
            "messages": [*system, *self.messages],
            "max_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "tools": tools or None,
        }

    @property
    def renderable(self) -> bool:
        plain = all(_is_plain(message) for message in self.messages)
        return plain and isinstance(self.system, str | None) and not self.thinking


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)

    type: str
    text: str | None = None


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True)

    type: str
    content: tuple[_Part, ...] | None = None
    output: Any = None

    @property
    def ends_turn(self) -> bool:
        """Whether it is a call that the server ran, so that the model went on in another turn."""
        return self.type == "mcp_call" and isinstance(self.output, str)


class _Incomplete(BaseModel):
    reason: str | None = None


class ResponseObject(BaseModel):
    """What `/v1/responses` gives."""

    model_config = ConfigDict(frozen=True)

    model: str
    status: str
    output: tuple[_Item, ...]
    incomplete_details: _Incomplete | None = None

    def chat(self, turns: int) -> Json:
        """A choice for each turn that the output shows; of a server that does not show them (gpt-oss), for each of
        `turns`, and the last has what is there."""
        shown: list[list[_Item]] = [[]]
        for item in self.output:
            shown[-1].append(item)
            if item.ends_turn:
                shown.append([])
        cut = self.incomplete_details is not None and self.incomplete_details.reason == "max_output_tokens"
        last = "length" if cut else "stop" if self.status == "completed" else self.status
        choices = [_of_turn(items, "tool_calls", calls=True) for items in shown[:-1]]
        if not choices and turns > 1:
            choices = [_of_turn([], "tool_calls", calls=True)] * (turns - 1)
            messages = [item for item in self.output if item.type == "message"]
            shown = [[item for item in self.output if item.type != "message" or item is messages[-1]]]
        return _completion(self.model, [*choices, _of_turn(shown[-1], last)])


def _of_turn(items: list[_Item], reason: str, *, calls: bool = False) -> Json:
    kinds = {item.type for item in items}
    text = said_in_items([item.model_dump() for item in items])["content"]
    calls = calls or bool(kinds - {"message", "reasoning"})
    return _choice(text, reason, calls=calls, reasoning="reasoning" in kinds)


class MessageObject(BaseModel):
    """What `/v1/messages` gives."""

    model_config = ConfigDict(frozen=True)

    model: str
    content: tuple[_Part, ...]
    stop_reason: str | None = None

    def chat(self) -> Json:
        kinds = {part.type for part in self.content}
        text = said_in_blocks([part.model_dump() for part in self.content])["content"]
        reason = STOP_REASONS.get(self.stop_reason or "", self.stop_reason)
        return _completion(
            self.model, [_choice(text, reason, calls="tool_use" in kinds, reasoning="thinking" in kinds)]
        )


def _completion(model: str, choices: list[Json]) -> Json:
    numbered = [{"index": index, **choice} for index, choice in enumerate(choices)]
    return {"object": "chat.completion", "model": model, "choices": numbered}


def _choice(text: str, reason: str | None, *, calls: bool, reasoning: bool) -> Json:
    message: Json = {
        "role": "assistant",
        "content": text,
        "tool_calls": [{}] if calls else None,
        "reasoning": "…" if reasoning else None,
    }
    return {"finish_reason": (reason or "")[:40] or None, "message": message}


def _is_plain(message: Json) -> bool:
    """A message with one text, as every template takes it."""
    return message.keys() <= {"role", "content", "type"} and isinstance(message.get("content"), str)


def _without(value: Json, name: str) -> Json:
    return {key: item for key, item in value.items() if key != name}
