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

ONE_TOKEN: Final = 1e-7
"""A `top_p` below leaves one token: the likeliest of fewer than ten million has more than that."""

CONSTRAINTS: Final = frozenset(
    """allowed_token_ids bad_words guided_choice guided_decoding guided_grammar guided_json guided_regex
    logits_processors output_config response_format structural_tag structured_outputs thinking_token_budget tool_choice
    tools trace_decode_token_ids use_beam_search vllm_xargs watermarking""".split()  # noqa: SIM905
)
"""Options of vLLM, of any version, that change which tokens may be chosen, and that logits alone do not replay. What
is not listed changes the prompt, the text or nothing: vLLM ignores options that it does not know."""

NO_OPTIONS: Final = frozenset({"sampler", "other"})
"""Fields of `Sampling` that no request sets."""


class Sampling(BaseModel):
    """How tokens were to be chosen.

    `sampler`: what drew the noise, of `toploc.tokens.noise.SAMPLERS`; the server's, no option of a request. `other`:
    names of constraints that no verifier can replay from logits alone.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

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
        """Whether one token is left to choose: the likeliest, at any temperature."""
        return self.temperature < GREEDY_BELOW or self.top_k == 1 or self.top_p < ONE_TOKEN or self.min_p == 1

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
        other = sorted(name for name in given.keys() & CONSTRAINTS if not _is_off(name, given[name]))
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
    if name == "tools":
        return not (isinstance(value, list) and any(_is_strict(tool) for tool in value))
    if name == "output_config":
        return not (isinstance(value, dict) and value.get("format"))  # its effort is the prompt's
    if name == "response_format":
        return bool(value == {"type": "text"})
    return value in (False, [], {})


def _is_strict(tool: Any) -> bool:
    """Whether a call of the tool is held to a grammar (vllm/tool_parsers/structural_tag_registry.py)."""
    if not isinstance(tool, dict):
        return False
    function = tool.get("function")
    return tool.get("strict") is True or (isinstance(function, dict) and function.get("strict") is True)
