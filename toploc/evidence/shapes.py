"""The fields of requests and responses that checks read, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..protocol import TokenId  # noqa: TC001 (pydantic reads it)

MAX_CHOICES: Final = 1024
"""Each is a prefill. Stops one small body from asking for thousands."""

MAX_SHOWN: Final = 100
"""Characters of a message about foreign input, which may itself be megabytes."""


class Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    function_call: dict[str, Any] | None = None


class Choice(BaseModel):
    model_config = ConfigDict(frozen=True)

    index: int = Field(ge=0, lt=MAX_CHOICES)
    finish_reason: str | None = Field(default=None, max_length=MAX_SHOWN)
    message: Message | None = None
    text: str | None = None


class Response(BaseModel):
    model_config = ConfigDict(frozen=True)

    object: Literal["chat.completion", "text_completion"]
    model: str
    choices: tuple[Choice, ...] = Field(max_length=MAX_CHOICES)


class Request(BaseModel):
    """What both routes have, as leniently as vLLM reads it: 12.0 is 12, and 1 is true.

    Unknown options are kept for `Sampling`, which says what cannot be replayed.
    """

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    include_reasoning: bool | None = None
    echo: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**32)] | None = None


class Chat(Request):
    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    reasoning_effort: str | None = None


class Completion(Request):
    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] = Field(min_length=1)
    suffix: None = None
    add_special_tokens: bool | None = None
