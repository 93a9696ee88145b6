"""What the doctor found, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    PASSED = "passed"
    WARNING = "warning"  # somebody has to judge it
    FAILED = "failed"  # `toploc serve` would not come up, or not with proofs


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `remedy` is what to do about it, empty if nothing."""

    check: str
    outcome: Outcome
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        lines = [f"{self.outcome:7} {self.check}: {self.message}"]
        return "\n".join([*lines, f"        -> {self.remedy}"] if self.remedy else lines)
