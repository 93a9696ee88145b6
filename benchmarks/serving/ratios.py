"""Figures with proofs over figures without, and whether that meets a goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio is held against. `worst` is for the interval's bad end, where it is not `bound` too."""

    bound: float
    higher_is_better: bool = False
    worst: float | None = None

    def __str__(self) -> str:
        sign = "≥" if self.higher_is_better else "≤"
        return f"{sign} {self.bound:g}" + ("" if self.worst is None else f", interval {sign} {self.worst:g}")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of medians, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]], seed: int = 0) -> Ratio:
        """Of pairs (without, with). The interval is the bootstrap's, by percentiles over pairs drawn anew, since the
        machine's drift is common to a pair (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13)."""
        figures = np.array(pairs, np.float64)
        drawn = np.random.default_rng(seed).integers(len(figures), size=(RESAMPLES, len(figures)))
        without, proven = np.median(figures[drawn], axis=1).T
        low, high = np.percentile(proven / without, [2.5, 97.5])
        off, on = np.median(figures, axis=0)
        return cls(float(on / off), float(low), float(high))

    def verdict(self, goal: Goal) -> str:
        """Whether the goal is `met` or `missed`, or the interval too wide to tell: `undecided`."""
        sign = 1 if goal.higher_is_better else -1
        value, bad, good = (sign * end for end in (self.value, self._end(goal, bad=True), self._end(goal, bad=False)))
        bound, worst = sign * goal.bound, sign * (goal.bound if goal.worst is None else goal.worst)
        if value >= bound and bad >= worst:
            return "met"
        return "missed" if good < bound else "undecided"

    def _end(self, goal: Goal, *, bad: bool) -> float:
        return self.low if bad == goal.higher_is_better else self.high
