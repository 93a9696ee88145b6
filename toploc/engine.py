"""What computed the states of an answer, in which mode: a prover's word, or a verifier's knowledge of itself.

Nothing can be concluded from a prover's word but that two sides are not comparable. Needs pydantic alone.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

LONGEST: Final = 60
"""Characters of a fact. Stops an engine whose description is longer than its proofs."""

Fact = Annotated[str, Field(min_length=1, max_length=LONGEST, pattern="^[!-~](?:[ -~]*[!-~])?$")]
"""Printable ASCII, so that it may stand in a terminal and a log as it is."""

Ranks = Annotated[int, Field(ge=1, lt=2**20)]


class Facts(BaseModel):
    """Some of what an engine says of itself; what is not said is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Fact | None = None
    version: Fact | None = None
    model_runner: Fact | None = Field(default=None, description="of vLLM: v1 or v2")
    attention: Fact | None = Field(default=None, description="back ends of attention, joined by +")
    tensor_parallel: Ranks | None = Field(default=None, description="ranks; left out for one")
    pipeline_parallel: Ranks | None = Field(default=None, description="stages; left out for one")
    execution: Fact | None = Field(default=None, description="eager, compiled, or the mode of CUDA graphs")
    kv_cache: Fact | None = Field(default=None, description="its dtype")
    quantization: Fact | None = Field(default=None, description="of the weights")
    device: Fact | None = None

    def describe(self, engine: Engine | None) -> bool:
        """Whether all that is said here, None too, is so of the engine. Of no fact at all: of any, also an unknown."""
        named = self.model_fields_set
        return not named or (engine is not None and all(getattr(engine, name) == getattr(self, name) for name in named))

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, str | int | None]:
        """None is a fact too: that an engine has none."""
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}

    def __str__(self) -> str:
        """In a line."""
        said = [f"{self.name or 'any engine'} {self.version or ''}".strip()]
        said += [text for text in (self.attention, self.execution, self.device) if text]
        for form, value in (
            ("model runner {}", self.model_runner),
            ("tensor parallel {}", self.tensor_parallel),
            ("pipeline parallel {}", self.pipeline_parallel),
            ("KV cache {}", self.kv_cache),
            ("weights {}", self.quantization),
        ):
            said += [form.format(value)] if value else []
        return ", ".join(said)


class Engine(Facts):
    """An engine. What a later version says beside these is left unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Fact
    version: Fact

    @classmethod
    def of(cls, name: str, version: str, **facts: str | int | None) -> Self:
        """From an engine's own texts, of any characters and length; one rank is not worth a word."""
        said = {
            key: fact_of(value) if isinstance(value, str) else value
            for key, value in facts.items()
            if value and not (key.endswith("_parallel") and value == 1)
        }
        return cls.model_validate({"name": fact_of(name), "version": fact_of(version), **said})


def fact_of(text: str) -> str:
    """A text as a `Fact`: other characters than printable ASCII become question marks, and its end is cut off."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text.strip())
    return shown[:LONGEST].strip() or "?"
