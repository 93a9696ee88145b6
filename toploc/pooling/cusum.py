"""The sum of a sequential test over audited answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Cusum:
    """The cumulative sum over audited answers, in the order in which they were made, that starts anew at zero (Page,
    Continuous inspection schemes, Biometrika 41, 1954).

    `highest` is the most it has been; `alarm` is the number of the answer at which it first reached the threshold, None
    as long as it has not.
    """

    threshold: float
    value: float = 0.0
    highest: float = 0.0
    answers: int = 0
    alarm: int | None = None

    def add(self, log_ratio: float) -> None:
        """The next answer, by its log-likelihood ratio."""
        self.answers += 1
        self.value = max(0.0, self.value + log_ratio)
        self.highest = max(self.highest, self.value)
        if self.alarm is None and self.value >= self.threshold:
            self.alarm = self.answers
