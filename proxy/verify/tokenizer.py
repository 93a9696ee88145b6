"""The tokenizer of a verifier in an engine: a copy of its own."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


class OwnTokenizer:
    """What `verify.engine.Engine` has of one, for an engine's class to be built on.

    Args:
        tokenizer: the engine's. Routes use it at the same time, and one is not to be shared between threads.
        ends: the ids of tokens that end answers, beside the tokenizer's own; None among them is none.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int | None]) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        self._encoding = threading.Lock()
        self.eos_token_ids: Collection[int] = frozenset(
            int(i) for i in (*ends, self._tokenizer.eos_token_id) if i is not None
        )

    @property
    def end(self) -> int | None:
        return next(iter(self.eos_token_ids)) if len(self.eos_token_ids) == 1 else None

    def encode(self, text: str, /) -> list[int]:
        with self._encoding:
            return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool, /) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens))
