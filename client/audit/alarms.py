"""The sequential test over an audit's answers, from what their reports say of the error of each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import printable
from toploc.page.figures import counted
from toploc.page.shown import NAME_LENGTH
from toploc.pooling.cusum import Cusum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc.report import Check

    from .entry import Entry

MOST_TESTS: Final = 50
"""Stops a verifier whose every report names another test from filling memory and page."""


class Alarm:
    """Of one verifier's thresholds against one copy.

    Thresholds are set for so many `audits`. Over more answers honest providers reach them as much more often, so that
    log(answers / audits) is added, as the chance falls by e with each 1 of the sum (Lorden 1971;
    `toploc.pooling.alarm`).
    """

    def __init__(self, thresholds: str, copy: str, threshold: float, audits: int, false_alarm: float) -> None:
        self.thresholds, self.copy = thresholds, copy
        self.audits, self.false_alarm = audits, false_alarm
        self._at_audits = threshold
        self._log_ratios: list[tuple[int, float]] = []

    def add(self, line: int, log_ratio: float) -> None:
        """The log-likelihood ratio of the next answer, of the copy against the honest model."""
        self._log_ratios.append((line, log_ratio))

    @property
    def answers(self) -> int:
        return len(self._log_ratios)

    @property
    def threshold(self) -> float:
        return self._at_audits + max(0.0, math.log(max(self.answers, 1) / self.audits))

    @property
    def cusum(self) -> Cusum:
        """After all answers."""
        cusum = Cusum(self.threshold)
        for _, log_ratio in self._log_ratios:
            cusum.add(log_ratio)
        return cusum

    @property
    def raised(self) -> bool:
        return self.cusum.alarm is not None

    @property
    def line(self) -> int | None:
        """Of the answer at which it was raised, in the evidence file."""
        return self.line_of(self.cusum)

    def line_of(self, cusum: Cusum) -> int | None:
        """`line` where `cusum`, which goes through all answers, is at hand."""
        return None if cusum.alarm is None else self._log_ratios[cusum.alarm - 1][0]

    def __str__(self) -> str:
        cusum, where = self.cusum, printable(f"{self.thresholds}, against {self.copy}")
        odds = f"{self.false_alarm:.3g} of honest providers in {counted(max(self.audits, self.answers), 'answer')}"
        if cusum.alarm is None:
            return (
                f"{where}: no alarm in {counted(self.answers, 'answer')}; the sum was {cusum.highest:.3g} at most, the "
                f"alarm is at {self.threshold:.3g} (at most {odds})"
            )
        return (
            f"{where}: ALARM at answer {cusum.alarm:,} of {self.answers:,}, line {self.line_of(cusum):,}; the sum "
            f"reached {self.threshold:.3g}, as that of at most {odds} does"
        )

    def to_json(self) -> dict[str, Any]:
        cusum = self.cusum
        return {
            "thresholds": self.thresholds,
            "copy": self.copy,
            "answers": self.answers,
            "alarm": cusum.alarm,
            "line": self.line_of(cusum),
            "highest": cusum.highest,
            "sum": cusum.value,
            "threshold": self.threshold,
            "false_alarm": self.false_alarm,
        }


class Alarms:
    """Takes entries one by one, in the order in which the answers were made; each choice is an answer.

    `not_comparable`: answers of provers that say that they are another engine than the tests are for. What they say may
    be a way out of a test, so it is counted, and none of them is accepted.
    """

    def __init__(self) -> None:
        self.not_comparable = 0
        self._alarms: dict[tuple[str, str], Alarm] = {}

    def add(self, entry: Entry) -> None:
        for check in entry.report.checks:
            if check.name == "pooled":
                self.not_comparable += check.reason == "not_comparable"
                self._add(entry.line, check)

    def _add(self, line: int, check: Check) -> None:
        log_ratios, alarms = check.figures.get("evidence"), check.thresholds.get("alarms")
        if not isinstance(log_ratios, dict) or not isinstance(alarms, dict):
            return
        for copy, log_ratio in log_ratios.items():
            key = str(check.thresholds.get("name"))[:NAME_LENGTH], copy[:NAME_LENGTH]
            if key not in self._alarms and len(self._alarms) < MOST_TESTS:
                alarm = _alarm(*key, alarms.get(copy))
                if alarm is not None:
                    self._alarms[key] = alarm
            if key in self._alarms and isinstance(log_ratio, int | float):
                self._alarms[key].add(line, float(log_ratio))

    def __iter__(self) -> Iterator[Alarm]:
        return iter(self._alarms.values())

    def __len__(self) -> int:
        return len(self._alarms)

    @property
    def raised(self) -> bool:
        return any(alarm.raised for alarm in self)


def _alarm(thresholds: str, copy: str, values: object) -> Alarm | None:
    """None where the report's numbers are none that a test can have."""
    if not isinstance(values, dict):
        return None
    numbers = [values.get(name) for name in ("threshold", "audits", "false_alarm")]
    good = [float(value) for value in numbers if isinstance(value, int | float) and value > 0]
    return Alarm(thresholds, copy, good[0], math.ceil(good[1]), good[2]) if len(good) == len(numbers) else None
