"""Requests and responses of `/inference/v1/generate`, tokens in and tokens out, in the form of a completion.

Its prompt is token ids, and so is its answer. Text is said only where the request asks for it (`output_mode`).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..protocol import TokenId  # noqa: TC001 (pydantic reads it)

Json = dict[str, Any]


class GenerateRequest(BaseModel):
    """What is read here; `sampling_params` are the engine's own options, by the names that completions have too."""

    model_config = ConfigDict(frozen=True)

    token_ids: list[TokenId] = Field(min_length=1)
    sampling_params: Json
    model: str | None = None
    output_mode: str | None = None
    features: Any = None
    content_parts: Any = None

    def completion(self) -> Json:
        # A server hands both to its processors of logits.
        processors = {"vllm_xargs": self.sampling_params.get("extra_args")}
        return {**self.sampling_params, **processors, "model": self.model, "prompt": self.token_ids}

    @property
    def renderable(self) -> bool:
        """Whether the prompt is its tokens, without images or audio in their places."""
        return not (self.features or self.content_parts)


class _Choice(BaseModel):
    model_config = ConfigDict(frozen=True)

    index: int
    text: str | None = None
    finish_reason: str | None = None


class GenerateObject(BaseModel):
    """What the route gives. Events of a stream name no model."""

    model_config = ConfigDict(frozen=True)

    choices: tuple[_Choice, ...]
    model: str | None = None

    def completion(self, model: str) -> Json:
        choices = [
            {"index": choice.index, "text": choice.text or "", "finish_reason": choice.finish_reason}
            for choice in self.choices
        ]
        return {"object": "text_completion", "model": self.model or model, "choices": choices}
