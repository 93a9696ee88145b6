"""The tests over an audit's answers, from what their reports say of the tokens of each."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import printable
from toploc.page.figures import counted
from toploc.page.shown import NAME_LENGTH
from toploc.pooling.surprise import FALSE_ALARM, PooledSurprise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toploc.report import Check

    from .entry import Entry

MOST_MODELS: Final = 50
"""Stops a provider whose every answer names another model from filling memory and page."""

UNKNOWN: Final = "no model named"

MOST_VARIANTS: Final = 32
"""Stops a verifier whose every report sweeps other options from filling memory and page."""

UNKNOWN_TOKENS: Final = ("count_differs", "retokenised")
"""Reasons of texts that the model may have written in tokens other than the tokenizer's."""

KINDS: Final = {
    "surprise": ("log_ratios", "sampled answer"),
    "margins": ("margin_ratios", "greedy or replayed answer"),
}
"""What is pooled: the figure of the check on tokens that is summed up, and what answers have it."""


@dataclass(slots=True)
class Variant:
    """Of answers as if drawn under one set of options. `line`: of the answer at which the sum was highest, in the
    evidence file."""

    test: PooledSurprise = field(default_factory=PooledSurprise)
    line: int = 0

    def add(self, line: int, log_ratios: dict[str, float]) -> None:
        before = self.test.highest
        self.test.add(log_ratios)
        if self.test.highest > before:
            self.line = line


class Surprise:
    """Of the answers under one model's name; `kind` is one of `KINDS`.

    Where options are not known, each set that was tried has a sum of its own, and an honest provider's answers keep one
    of them low. So only the lowest counts.
    """

    def __init__(self, model: str, kind: str = "surprise") -> None:
        self.model, self.kind = model, kind
        self._variants: dict[str, Variant] = {}

    def add(self, line: int, log_ratios: Mapping[str, dict[str, float]]) -> None:
        """Of one answer, by options as JSON; they are empty where the request says them all."""
        for options, ratios in log_ratios.items():
            if options in self._variants or len(self._variants) < MOST_VARIANTS:
                variant = self._variants.setdefault(options, Variant())
                if variant.test.takes(ratios):
                    variant.add(line, ratios)

    @property
    def options(self) -> str:
        """Under which the sum is lowest, as a share of its threshold. Answers whose request says them all stand for
        themselves, and are shown unless those of the others alone are an alarm."""
        tested = {options: variant.test for options, variant in self._variants.items() if variant.test.answers}
        swept = [options for options in tested if options]
        if "" in tested and (tested[""].raised or not swept or not all(tested[one].raised for one in swept)):
            return ""
        return min(swept, key=lambda options: _share(tested[options]), default="")

    @property
    def test(self) -> PooledSurprise:
        return self._variants.get(self.options, Variant()).test

    @property
    def line(self) -> int:
        return self._variants.get(self.options, Variant()).line

    def __str__(self) -> str:
        test, answers = self.test, counted(self.test.answers, KINDS[self.kind][1])
        under = f" as if asked with {printable(self.options)}" if self.options else ""
        odds = f"at most {FALSE_ALARM:g} of honest providers"
        if not test.raised:
            return (
                f"{printable(self.model)}: no alarm in {answers}{under}; the sum was {test.highest:.3g} at most, the "
                f"alarm is at {test.threshold:.3g} ({odds})"
            )
        return (
            f"{printable(self.model)}: ALARM in {answers}{under}, at answer {test.at:,}, line {self.line:,}; the sum "
            f"reached {test.highest:.3g} of {test.threshold:.3g}, as that of {odds} does"
        )

    def to_json(self) -> dict[str, Any]:
        test = self.test
        options = {"options": json.loads(self.options)} if self.options else {}
        return {
            "model": self.model,
            "kind": self.kind,
            **options,
            "answers": test.answers,
            "alarm": test.at if test.raised else None,
            "line": self.line if test.raised else None,
            "highest": test.highest,
            "threshold": test.threshold,
            "false_alarm": FALSE_ALARM,
        }


class Surprises:
    """Takes entries one by one, in the order in which the answers were made; each choice with the figure is an
    answer."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], Surprise] = {}
        self._texts = self._known = 0
        """Texts alone so far, and those of which the tokens are known."""

    def add(self, entry: Entry) -> None:
        model = (entry.model or UNKNOWN)[:NAME_LENGTH]
        for check in entry.report.checks:
            if check.name != "tokens":
                continue
            self._texts += check.figures.get("source") == "text" or check.reason in UNKNOWN_TOKENS
            self._known += check.figures.get("source") == "text"
            for kind, (figure, _) in KINDS.items():
                key = (model, kind)
                found = self._less_selection(check, _ratios(check.figures, figure))
                known = sum(kind == other for _, other in self._models)
                if found and (key in self._models or known < MOST_MODELS):
                    self._models.setdefault(key, Surprise(*key)).add(entry.line, found)

    def _less_selection(self, check: Check, found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """Of texts only those count whose tokens are known. Of a share of all answers a factor whose expectation is 1
        at most has one of 1 / share at most, whichever they are."""
        if check.figures.get("source") != "text":
            return found
        less = math.log(self._texts / self._known)
        return {options: {name: ratio - less for name, ratio in one.items()} for options, one in found.items()}

    def __iter__(self) -> Iterator[Surprise]:
        return (surprise for surprise in self._models.values() if surprise.test.answers)

    @property
    def raised(self) -> bool:
        return any(surprise.test.raised for surprise in self)


def _share(test: PooledSurprise) -> float:
    return test.highest / test.threshold


def _ratios(figures: Mapping[str, Any], name: str) -> dict[str, dict[str, float]]:
    """Those of an answer by options as JSON, whatever a verifier says."""
    swept = figures.get("swept")
    if not isinstance(swept, list):
        return {"": numbers} if (numbers := _numbers(figures.get(name))) else {}
    found = {}
    for one in swept[:MOST_VARIANTS]:
        if isinstance(one, dict) and (numbers := _numbers(one.get(name))):
            found[json.dumps(one.get("options"), sort_keys=True)[:NAME_LENGTH]] = numbers
    return found


def _numbers(given: object) -> dict[str, float]:
    if not isinstance(given, dict):
        return {}
    numbers = {name: float(value) for name, value in given.items() if isinstance(value, int | float)}
    return numbers if all(map(math.isfinite, numbers.values())) else {}
