"""What a run keeps in its folder, one JSON object a line, so that it goes on where it ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HONEST: Final = "as they are"
"""Weights that are no copy."""

FIGURES: Final = ("mismatches", "mantissa_mean", "mantissa_median")
"""Of a chunk that is kept."""


@dataclass(frozen=True, slots=True)
class Held:
    """One answer, held against a prefill.

    `chunks`: mismatches, mantissa mean and mantissa median of each. `checks`: what a server's report says beside its
    proofs, by the check's name.
    """

    prover: str
    weights: str
    verifier: str
    answer: int
    chunks: list[list[float]]
    checks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Folder:
    """Of a run."""

    path: Path

    def answers(self, prover: str, weights: str) -> list[dict[str, Any]]:
        """Requests and their responses, as far as they were made."""
        file = self._answers(prover, weights)
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def keep_answers(self, prover: str, weights: str, answers: Iterable[dict[str, Any]]) -> None:
        """More of them."""
        text = "".join(json.dumps(answer) + "\n" for answer in answers)
        with self._answers(prover, weights).open("a") as file:
            file.write(text)

    def held(self) -> list[Held]:
        return [Held(**json.loads(line)) for line in self._held.read_text().splitlines()] if self._held.exists() else []

    def keep(self, held: Held) -> None:
        with self._held.open("a") as file:
            file.write(json.dumps(asdict(held)) + "\n")

    @property
    def _held(self) -> Path:
        return self.path / "held.jsonl"

    def _answers(self, prover: str, weights: str) -> Path:
        return self.path / f"{prover}-{weights.replace(' ', '-')}.jsonl"
