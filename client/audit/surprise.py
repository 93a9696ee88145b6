"""The tests over an audit's sampled answers, from what their reports say of the surprise in each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import printable
from toploc.pooling.surprise import FALSE_ALARM, PooledSurprise

from .entry import NAME_LENGTH
from .figures import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .entry import Entry

MOST_MODELS: Final = 50
"""Stops a provider whose every answer names another model from filling memory and page."""

UNKNOWN: Final = "no model named"


class Surprise:
    """Of the answers under one model's name."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.test = PooledSurprise()
        self.line = 0
        """Of the answer at which the sum was highest, in the evidence file."""

    def add(self, line: int, log_ratios: dict[str, float]) -> None:
        before = self.test.highest
        self.test.add(log_ratios)
        if self.test.highest > before:
            self.line = line

    def __str__(self) -> str:
        test, answers = self.test, counted(self.test.answers, "sampled answer")
        odds = f"at most {FALSE_ALARM:g} of honest providers"
        if not test.raised:
            return (
                f"{printable(self.model)}: no alarm in {answers}; the sum was {test.highest:.3g} at most, the alarm is "
                f"at {test.threshold:.3g} ({odds})"
            )
        return (
            f"{printable(self.model)}: ALARM in {answers}, at answer {test.at:,}, line {self.line:,}; the sum reached "
            f"{test.highest:.3g} of {test.threshold:.3g}, as that of {odds} does"
        )

    def to_json(self) -> dict[str, Any]:
        test = self.test
        return {
            "model": self.model,
            "answers": test.answers,
            "alarm": test.at if test.raised else None,
            "line": self.line if test.raised else None,
            "highest": test.highest,
            "threshold": test.threshold,
            "false_alarm": FALSE_ALARM,
        }


class Surprises:
    """Takes entries one by one, in the order in which the answers were made; each sampled choice is an answer."""

    def __init__(self) -> None:
        self._models: dict[str, Surprise] = {}

    def add(self, entry: Entry) -> None:
        model = (entry.model or UNKNOWN)[:NAME_LENGTH]
        for check in entry.report.checks:
            given = check.figures.get("log_ratios") if check.name == "tokens" else None
            if isinstance(given, dict) and (model in self._models or len(self._models) < MOST_MODELS):
                numbers = {name: float(v) for name, v in given.items() if isinstance(v, int | float)}
                surprise = self._models.setdefault(model, Surprise(model))
                if numbers and all(map(math.isfinite, numbers.values())) and surprise.test.takes(numbers):
                    surprise.add(entry.line, numbers)

    def __iter__(self) -> Iterator[Surprise]:
        return (surprise for surprise in self._models.values() if surprise.test.answers)

    @property
    def raised(self) -> bool:
        return any(surprise.test.raised for surprise in self)
