"""One prompt that a route would have had SGLang answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .logprobs import wanted

if TYPE_CHECKING:
    from ...channel.messages import Logprobs


def name_of(served: str, adapter: str | None) -> str:
    """The model under an adapter, as requests and responses name it (OpenAIServingBase._parse_model_parameter in
    sglang/srt/entrypoints/openai/serving_base.py)."""
    return served if adapter is None else f"{served}:{adapter}"


@dataclass(frozen=True, slots=True)
class Call:
    """See `verify.engine.Rendered`.

    `request`: TokenizedGenerateReqInput, what SGLang makes of the prompt and its options. `adapter`: its name.
    """

    request: Any
    adapter: str | None

    @property
    def token_ids(self) -> list[int]:
        return list(self.request.input_ids)

    @property
    def media(self) -> tuple[()]:
        """A prompt with media is not rendered."""
        return ()

    @property
    def logprobs(self) -> Logprobs | None:
        return wanted(self.request)
