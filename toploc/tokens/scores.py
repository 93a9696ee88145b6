"""The scores of an answer's tokens: their columns, and these as a table and as bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FARTHEST: Final = 1e6
"""A margin where a token was forbidden: JSON has no infinity."""

POWERS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, -0.15, -0.4, -1.0, -5.0)
"""The λ at which cumulants are taken: those above 0 for text that is too surprising, those below for text that is not
surprising enough. At λ = 1 - 1/r the bound is tightest for text at r times the temperature, at -5 nearly so for greedy
text."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of n tokens, float64[n] each, in nats of the processed logits.

    `margin`: max l - l_y, before temperature: 0 where greedy decoding would say the token. `best`: int64[n], the token
    that it would say. `cut`: how far l_y lies outside of what top-k, top-p and min-p leave (`_truncate`); 0 within.
    `surprisal`: -log p_y, for a token outside that of the least likely one within. `entropy` and `variance`: mean
    and variance of -log p. `tail`: the probability of all tokens that are no likelier. `top`: max l.
    `cumulants`: [n, len(POWERS)], log E[exp(λ s)] of the surprisal s, for Chernoff's bound. Greedy answers have
    margins and `top` alone; the rest is 0.
    `replay`: max (l + T g) - (l_y + T g_y), at least 0, with the sampler's noise g at temperature T, over tokens that
    sampling leaves: 0 where it would choose the token. None where the noise is not known.
    """

    margin: NDArray[np.float64]
    best: NDArray[np.int64]
    cut: NDArray[np.float64]
    surprisal: NDArray[np.float64]
    entropy: NDArray[np.float64]
    variance: NDArray[np.float64]
    tail: NDArray[np.float64]
    top: NDArray[np.float64]
    cumulants: NDArray[np.float64]
    replay: NDArray[np.float64] | None = None

    @classmethod
    def from_table(cls, table: NDArray[np.float64]) -> TokenScores:
        """From float64 [n, 8 + len(POWERS)], the columns in order, and one more where the noise is known."""
        ends = np.cumsum([len(POWERS) if name == "cumulants" else 1 for name in COLUMNS])
        parts = dict(zip(COLUMNS, np.split(table, ends[:-1], axis=1), strict=True))
        replay, cumulants = parts.pop("replay"), parts.pop("cumulants")
        columns = {name: part[:, 0] for name, part in parts.items()}
        best = columns.pop("best").astype(np.int64)
        return cls(best=best, cumulants=cumulants, replay=replay[:, 0] if replay.size else None, **columns)

    @classmethod
    def from_bytes(cls, columns: Mapping[str, bytes]) -> TokenScores:
        """From what `to_bytes` gave."""
        count = len(columns["margin"]) // 8
        parts = [np.frombuffer(columns[name]).reshape(count, -1) for name in COLUMNS if name in columns]
        return cls.from_table(np.concatenate(parts, axis=1))

    def to_bytes(self) -> dict[str, bytes]:
        """Each column that is there, as float64 in order of rows. Token ids are far below 2**53."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return {
            name: np.ascontiguousarray(column, dtype=np.float64).tobytes()
            for name, column in columns.items()
            if column is not None
        }


COLUMNS: Final = tuple(field.name for field in fields(TokenScores))
"""The order of columns wherever they stand side by side."""
