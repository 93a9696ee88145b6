"""Log-probabilities of tokens as an engine reports them: before any option but a grammar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from .masks import Masks

COLUMNS: Final = ("ids", "values", "ranks")

ROWS: Final = 64
"""Of the vocabulary in float32 at once: 33 MB at 128,000 tokens."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of n tokens: int32 and float32 [n, 1 + k], each token itself and then k others; int32[n], its rank from 1."""

    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    ranks: NDArray[np.int32]

    def to_bytes(self, prefix: str = "") -> dict[str, bytes]:
        """Each column in order of rows, under its name after the prefix."""
        return {f"{prefix}{name}": getattr(self, name).tobytes() for name in COLUMNS}

    @classmethod
    def from_bytes(cls, columns: Mapping[str, bytes], prefix: str = "") -> TokenLogprobs | None:
        """From what `to_bytes` gave; None if there is nothing with this prefix."""
        if f"{prefix}ids" not in columns:
            return None
        ids, values, ranks = (columns[prefix + name] for name in COLUMNS)
        count = len(ranks) // 4
        return cls(
            np.frombuffer(ids, dtype=np.int32).reshape(count, -1),
            np.frombuffer(values, dtype=np.float32).reshape(count, -1),
            np.frombuffer(ranks, dtype=np.int32),
        )


@torch.inference_mode()
def token_logprobs(
    logits: Iterable[torch.Tensor],
    token_ids: Sequence[int],
    count: int,
    *,
    given: Sequence[int] = (),
    raw: bool = False,
    masks: Masks | None = None,
) -> TokenLogprobs:
    """Those of the tokens, and of the `count` likeliest, or of the `given` ones in their place.

    `logits`: [rows, vocabulary], all rows together as many as there are tokens. `raw`: the logits themselves, as an
    engine reports them that was told so. Tokens that a grammar's `masks` do not leave have -inf.
    """
    parts = []
    first = 0
    for part in logits:
        for at in range(0, len(part), ROWS):
            block = part[at : at + ROWS].to(torch.float32, copy=masks is not None)
            if masks is not None:
                masks.forbid(block, first, raw=True)
            scores = block if raw else block.log_softmax(dim=-1)
            chosen = torch.tensor(token_ids[first : first + len(block)], device=scores.device)[:, None]
            first += len(block)
            own = scores.gather(1, chosen)
            if given:
                others = torch.tensor(given, device=scores.device).expand(len(block), -1)
            else:
                others = scores.topk(min(count, scores.shape[1]), dim=-1).indices
            ids = torch.cat([chosen, others], dim=1)
            ranks = (scores >= own).sum(dim=-1)
            parts.append((ids.int().cpu(), scores.gather(1, ids).cpu(), ranks.int().cpu()))
    columns = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return TokenLogprobs(*columns)
