"""One call of `engine_client.generate` that did not happen: what a route would have had the engine do."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toploc.evidence.alternatives import MORE

from ...channel.messages import Logprobs
from ...verify.engine import Unrenderable
from .media import media_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    from toploc.protocol import Media


@dataclass(frozen=True, slots=True)
class Call:
    """See `verify.engine.Rendered`."""

    prompt: Any
    sampling_params: SamplingParams
    request_id: str
    lora_request: Any
    longer: frozenset[str] = frozenset()
    """The options of `LISTS` in which `sampling_params` has `MORE` than the request asks for."""
    by_text: bool = False
    """Whether the response lists tokens in objects by their text."""
    limit: int | None = None
    """Of tokens, where the request has one; `sampling_params` may have a lower one."""
    reasoning: Mapping[str, Any] = field(default_factory=dict)
    """What the route says of the reasoning before the answer: fields of vLLM's own request."""
    request: EngineCoreRequest | None = None
    """What vLLM's input processor made of it, with the back end of its grammar; None before."""

    @property
    def asked_params(self) -> SamplingParams:
        """What the request asks for, which the engine may refuse."""
        params = copy(self.sampling_params)
        for name in self.longer:
            setattr(params, name, getattr(params, name) - MORE)
        return params

    @property
    def logprobs(self) -> Logprobs | None:
        """What the answer has to report of log-probabilities, but for whether they are logits."""
        params = self.sampling_params
        if params.num_logprobs is None and params.prompt_logprobs is None:
            return None
        given = params.logprob_token_ids if params.logprobs is None else None
        return Logprobs(params.num_logprobs, params.prompt_logprobs, given or [])

    @property
    def token_ids(self) -> list[int]:
        """Raises Unrenderable for prompts that are more than tokens and media."""
        kind = self.prompt.get("type", "token") if isinstance(self.prompt, dict) else None
        if kind != "token" and media_of(self.prompt) is None:
            raise Unrenderable("a prompt with embeddings, or of an encoder-decoder model, cannot be verified")
        return list(self.prompt["prompt_token_ids"])

    @property
    def media(self) -> tuple[Media, ...]:
        """Of the prompt; none where it has none."""
        return media_of(self.prompt) or ()
