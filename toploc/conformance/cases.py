"""The cases: what a program is asked, and what it has to answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

FAMILIES: Final = ("proofs", "evidence", "receipts", "reports")
"""A file of vectors each; a verifier needs them in this order."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question and its only right answer. `id` begins with the family's name and the question's."""

    id: str
    question: str
    input: Any
    output: dict[str, Any]

    @property
    def family(self) -> str:
        return self.id.partition("/")[0]

    @property
    def line(self) -> bytes:
        """What a program reads: the case without its answer."""
        asked = {"id": self.id, "question": self.question, "input": self.input}
        return json.dumps(asked).encode() + b"\n"


def load(family: str) -> list[Case]:
    """The cases of a family, in their order."""
    text = (resources.files(__package__) / "vectors" / f"{family}.jsonl").read_text("utf-8")
    return [Case(**json.loads(line)) for line in text.splitlines()]
