"""What the claimed model makes of texts: the scores of each token, one prefill an answer."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from texts import MODEL, TOKENS, request

from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import TokenScores
from toploc.tokens.scoring import score_tokens
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

COLUMNS = tuple(field.name for field in fields(TokenScores))
SAMPLER = "splitmix64"
"""Of the servers that wrote the texts (`toploc_proofs.sampler`)."""

SAVED_EVERY = 50


class Scorer:
    """Scores in the files of a folder, one for each kind and writer; what a file lacks is computed on demand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.prefill = TransformersPrefill(MODEL)

    def scores(self, kind: str, writer: str, numbers: Sequence[int], texts: Sequence[list[int]]) -> list[TokenScores]:
        """Of each text as an answer to the question of its number."""
        path = self._folder / f"{kind}-{writer}.npz"
        columns: dict[str, NDArray[np.float64]] = dict(np.load(path)) if path.exists() else {}
        done = len(columns.get("margin", ()))
        while done < len(texts):
            part = slice(done, min(done + SAVED_EVERY, len(texts)))
            added = [self._score(kind, *item) for item in zip(numbers[part], texts[part], strict=True)]
            for name in COLUMNS:
                new = [getattr(scores, name) for scores in added]
                if new[0] is not None:
                    columns[name] = np.concatenate([*([columns[name]] if done else []), np.stack(new)])
            np.savez_compressed(path, **columns)
            done = part.stop
            print(f"{kind} by {writer}: {done} of {len(texts)} scored", file=sys.stderr)
        return [TokenScores(**{name: column[i] for name, column in columns.items()}) for i in range(len(texts))]

    def _score(self, kind: str, number: int, text: list[int]) -> TokenScores:
        body = request(kind, number)
        prompt = self.prefill.render(body["messages"])
        logits = self.prefill.logits(self.prefill.states(prompt, text))
        sampling = Sampling.of(body).model_copy(update={"sampler": SAMPLER})
        return score_tokens(logits, prompt, text, sampling, self.prefill.eos_token_ids)


def beginning(scores: TokenScores, tokens: int) -> TokenScores:
    """Of the answer's first tokens: scores look at nothing that comes after."""
    assert tokens <= TOKENS
    columns = {name: getattr(scores, name) for name in COLUMNS}
    return TokenScores(**{name: None if column is None else column[:tokens] for name, column in columns.items()})
