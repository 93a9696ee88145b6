"""The options of a request that decide which tokens its answer may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

GREEDY_BELOW: Final = 1e-5
"""vLLM takes lower temperatures for 0 (vllm/sampling_params.py)."""

LEAST_TEMPERATURE: Final = 1e-2
"""vLLM raises those between `GREEDY_BELOW` and this to this (vllm/sampling_params.py)."""

MOST_BIAS: Final = 100.0
"""vLLM clips `logit_bias` to this (vllm/sampling_params.py)."""

HARMLESS: Final = frozenset(
    """add_generation_prompt add_special_tokens cache_salt chat_template_kwargs continue_final_message documents echo
    include_reasoning include_stop_str_in_output logprobs max_completion_tokens max_tokens messages metadata model n
    parallel_tool_calls priority prompt prompt_logprobs reasoning_effort request_id return_prompt_text return_token_ids
    return_token_offsets return_tokens_as_token_ids service_tier session_id skip_special_tokens
    spaces_between_special_tokens stop store stream stream_interval stream_options toploc tools top_logprobs
    user""".split()  # noqa: SIM905
)
"""Options that change the prompt, the text or nothing, but not the choice among tokens."""

NO_OPTIONS: Final = frozenset({"sampler", "other"})
"""Fields of `Sampling` that no request sets."""


class Sampling(BaseModel):
    """How tokens were to be chosen.

    `sampler`: what drew the noise, of `toploc.tokens.noise.SAMPLERS`; the server's, no option of a request. `other`:
    names of options that no verifier can replay from logits alone.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1, lt=2**32)
    min_p: float = Field(default=0.0, ge=0, le=1)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, gt=0)
    logit_bias: dict[int, float] = {}
    min_tokens: int = Field(default=0, ge=0, lt=2**32)
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    sampler: str | None = None
    other: tuple[str, ...] = ()

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _clip(cls, given: Any) -> Any:
        """Keys are text in JSON."""
        if not isinstance(given, dict) or not all(isinstance(bias, int | float) for bias in given.values()):
            raise ValueError("expected an object of numbers")
        return {_token_id(key): min(MOST_BIAS, max(-MOST_BIAS, float(bias))) for key, bias in given.items()}

    @field_validator("seed", mode="after")
    @classmethod
    def _no_seed(cls, given: int | None) -> int | None:
        return None if given == -1 else given  # as vLLM reads it (vllm/sampling_params.py)

    @field_validator("stop_token_ids", mode="before")
    @classmethod
    def _tuple(cls, given: Any) -> Any:
        return tuple(given) if isinstance(given, list) else given

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def divisor(self) -> float:
        """What logits are divided by, 1 where greedy."""
        return 1.0 if self.greedy else max(self.temperature, LEAST_TEMPERATURE)

    @classmethod
    def of(cls, request: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Sampling:
        """The options in a request's body; what it leaves out, or null, is the server's default, then OpenAI's.

        `defaults` are those of the model's generation_config.json, which vLLM takes as its own. Raises pydantic's
        ValidationError.
        """
        given = {name: value for name, value in request.items() if value is not None}
        known = {name: given[name] for name in cls.model_fields if name in given and name not in NO_OPTIONS}
        other = sorted(name for name in given.keys() - HARMLESS - known.keys() if not _is_off(name, given[name]))
        return cls.model_validate({**(defaults or {}), **known, "other": tuple(other)})


def _token_id(key: Any) -> int:
    text = str(key)
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= 2**32:
        raise ValueError("expected token ids as keys")
    return int(text)


def _is_off(name: str, value: Any) -> bool:
    """Values with which an option that changes the choice of tokens does not."""
    if name == "tool_choice":
        return value in ("auto", "none")  # any other is a grammar
    if name == "response_format":
        return bool(value == {"type": "text"})
    return value in (False, [], {}) or (name == "length_penalty" and value == 1)
