"""Is the sampled text of many answers, however short, more or less surprising than the model's own?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FALSE_ALARM: Final = 0.01
"""The chance with which an honest provider's answers raise an alarm, however many they are."""


class PooledSurprise:
    """A sequential test over answers, in the order in which they were made.

    For each λ, Shiryaev's and Roberts' statistic R = (1 + R) exp(x) over answers, x of `tokens.surprisal.log_ratios`.
    The mean of R over λ has expectation n at most after n honest answers, so that it reaches n / `FALSE_ALARM` with a
    chance of `FALSE_ALARM` at most (Doob's inequality; Shin, Ramdas, Rinaldo, arXiv 2203.03532, section 2.4). Nothing
    is calibrated, and no altered copy is needed.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.highest = 0.0
        """The largest logarithm of the mean so far, at least 0."""
        self.at = 0
        """The number of the answer at which it was."""
        self._running: dict[str, float] = {}

    def add(self, log_ratios: Mapping[str, float]) -> None:
        """The next answer's, by λ; the λ are those of the first answer."""
        if not self.takes(log_ratios):
            raise ValueError("log_ratios: of other λ than the first answer's; pool answers of one verifier's version")
        self._running = self._running or dict.fromkeys(log_ratios, -math.inf)
        self.answers += 1
        for power, gain in log_ratios.items():
            self._running[power] = _log_add(0.0, self._running[power]) + gain
        mean = -math.log(len(self._running)) + _log_sum(self._running.values())
        if mean > self.highest:
            self.highest, self.at = mean, self.answers

    def takes(self, log_ratios: Mapping[str, float]) -> bool:
        """Whether they are of the λ of the first answer, or are the first."""
        return bool(log_ratios) and log_ratios.keys() == (self._running or log_ratios).keys()

    @property
    def threshold(self) -> float:
        """What `highest` has to reach."""
        return math.log(max(self.answers, 1) / FALSE_ALARM)

    @property
    def raised(self) -> bool:
        return self.highest >= self.threshold


def _log_add(one: float, two: float) -> float:
    return _log_sum((one, two))


def _log_sum(values: Iterable[float]) -> float:
    given = list(values)
    most = max(given)
    return most if most == -math.inf else most + math.log(sum(math.exp(value - most) for value in given))
