"""How many of an answer's tokens are reasoning, as SGLang's scheduler counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ..guards import load
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Reasoning:
    """By the server's reasoning parser (`init_tokenizer` in sglang/srt/managers/scheduler.py, and
    `_maybe_update_reasoning_tokens` in sglang/srt/managers/scheduler_components/batch_result_processor.py).

    Attributes:
        ends: the tokens that end an answer's reasoning; none without a parser.
        begins: those that begin it where the model opens it itself.
        is_selected: whether requests may name others that end it.
    """

    ends: Sequence[int] = ()
    begins: Sequence[int] = ()
    is_selected: bool = False

    @classmethod
    def of(cls, parser: str | None, tokenizer: Any) -> Self:
        """Of the parser of this name."""
        if not parser:
            return cls()
        detector = load(reliances.REASONING)(model_type=parser, stream_reasoning=False, tokenizer=tokenizer).detector
        # Before 0.5.22 the scheduler encodes the end itself; before 0.5.23 no model opens its reasoning by itself.
        find_ends = getattr(detector, "get_think_end_token_ids", None)
        find_begins = getattr(detector, "get_self_opened_think_start_token_ids", None)
        encoded = find_ends(tokenizer) if find_ends else tokenizer.encode(detector.think_end_token, False)
        begins = (find_begins(tokenizer) if find_begins and encoded else None) or ()
        return cls(
            tuple(encoded or ()), tuple(begins), bool(getattr(detector, "request_selectable_think_end_tokens", ()))
        )

    def count(self, request: Any, token: int) -> int:
        """How many there are with one token more. `request`: the scheduler's (`Req`)."""
        if request.require_reasoning and self.ends:
            request.update_reasoning_tokens(token, list(self.ends))
        elif self.begins and not request.require_reasoning:
            request.update_self_opened_reasoning_tokens(token, list(self.begins), list(self.ends))
        return int(request.reasoning_tokens)
