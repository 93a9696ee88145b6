"""Outputs of one choice, as `TokenizerManager.generate_request` gives them to routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .logprobs import Reported


class Step(NamedTuple):
    """What a choice has said once it has so many tokens; `reason`: why it ends there, None if it does not."""

    text: str
    end: int
    reason: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Outputs:
    """As far as routes read them: `TokenizerManager._handle_batch_output` makes them
    (sglang/srt/managers/tokenizer_manager.py).

    Attributes:
        reasoning: how many of the tokens are reasoning, up to each.
        weights: what the operator calls them.
        prompt: its tokens, where the request asks for them.
    """

    rid: str
    prompt_tokens: int
    token_ids: list[int]
    reasoning: Sequence[int]
    reported: Reported | None
    weights: Any
    prompt: list[int] | None = None

    def whole(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Each with all that there is until then."""
        return [self._at(step, step.text, 0) for step in steps]

    def deltas(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Each with what is new alone (--incremental-streaming-output)."""
        before = [Step("", 0, None), *steps]
        return [
            self._at(step, step.text[len(last.text) :], last.end) for last, step in zip(before, steps, strict=False)
        ]

    def _at(self, step: Step, text: str, first: int) -> dict[str, Any]:
        said = {
            "id": self.rid,
            "finish_reason": step.reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": step.end,
            "cached_tokens": 0,
            "reasoning_tokens": self.reasoning[step.end - 1] if step.end else 0,
            "weight_version": self.weights,
            "weight_versions": [{"version": self.weights, "start": 0, "end": step.end}],
        }
        if self.reported is not None:
            said |= self.reported.said(first, step.end)
        output = {"text": text, "output_ids": self.token_ids[first : step.end], "meta_info": said}
        return output if self.prompt is None else {**output, "prompt_token_ids": self.prompt}
