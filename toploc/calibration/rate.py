"""How many of how many, with an exact interval. Needs scipy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `total`, and the two-sided binomial confidence interval of Clopper and Pearson (1934)."""

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int, confidence: float = 0.95) -> Rate:
        """The interval; from 0 to 1 where there is nothing to count."""
        from scipy.stats import binomtest

        if total == 0:
            return cls(0, 0, 0.0, 1.0)
        interval = binomtest(count, total).proportion_ci(confidence, method="exact")
        return cls(count, total, float(interval.low), float(interval.high))

    @property
    def share(self) -> float:
        """0 where there is nothing to count."""
        return self.count / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.count:,} of {self.total:,} ({_percent(self.low)} to {_percent(self.high)})"


def _percent(share: float) -> str:
    """Three digits, so that an upper bound of 0.016 % does not become 0.02 %."""
    return f"{100 * share:.3g} %"
