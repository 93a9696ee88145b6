"""When a sequential test over audited answers raises its alarm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import ToplocError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def threshold(
    honest: Floats, *, answers: int, false_alarm: float = 0.01, simulations: int = 10_000, seed: int = 0
) -> float:
    """A threshold that at most a share `false_alarm` of honest providers reaches within so many audits: the larger of

    1. what is found by simulation: sequences of `honest`, the log-likelihood ratios of answers that were not fitted to,
       drawn with replacement;
    2. log(answers / false_alarm), which suffices where scores are as normal as they are taken to be (Lorden, Procedures
       for reacting to a change in distribution, 1971): n answers say nothing of what happens once in more than n.
    """
    if not len(honest) or answers < 1 or not 0 < false_alarm < 1:
        raise ToplocError("expected ratios of honest answers, audits from 1 on, and a false-alarm rate in (0, 1)")
    import numpy as np

    random = np.random.default_rng(seed)
    value, highest = np.zeros(simulations), np.zeros(simulations)
    for _ in range(answers):
        value = np.maximum(0.0, value + random.choice(honest, simulations))
        highest = np.maximum(highest, value)
    simulated = float(np.nextafter(np.quantile(highest, 1 - false_alarm, method="higher"), math.inf))
    return max(simulated, math.log(answers / false_alarm))


def audits_needed(
    honest: Floats,
    altered: Floats,
    *,
    share: float,
    limit: float,
    most: int = 10_000,
    simulations: int = 1000,
    seed: int = 0,
) -> NDArray[np.int64]:
    """After how many audits each of so many simulated providers is found out that alters a share of its answers.

    `most` + 1 where it is not by then. `limit` is the threshold; answers are drawn with replacement.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    value = np.zeros(simulations)
    alarmed = np.full(simulations, most + 1, dtype=np.int64)
    for number in range(1, most + 1):
        drawn = np.where(
            random.random(simulations) < share, random.choice(altered, simulations), random.choice(honest, simulations)
        )
        value = np.maximum(0.0, value + drawn)
        alarmed = np.where((alarmed > most) & (value >= limit), number, alarmed)
        if (alarmed <= most).all():
            break
    return alarmed
