"""Do tokens of greedy or replayed answers lie far from what the model says more often than two engines make them?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIMES: Final = (1.5, 2.0, 3.0, 5.0, 10.0)
"""By how much more often, of the alternatives that are tried at once."""

MOST: Final = 0.5
"""Of an alternative's share."""


def margin_ratios(distances: NDArray[np.float64], near: float, rate: float) -> dict[str, float]:
    """By `TIMES`, the logarithm of a factor whose expectation is 1 at most for an answer of the model: what is summed
    up over answers (`toploc.pooling.surprise`).

    `distances`: float64[n]. Each token of the model lies further than `near` with a chance of `rate` at most, given
    those before it. So the likelihood ratio of a larger share q, (q / rate)^far ((1 - q) / (1 - rate))^rest, has an
    expectation of 1 at most. None are given where `rate` is 0 or too large.
    """
    far = int((distances > near).sum())
    rest = len(distances) - far
    shares = {f"{times:g}": times * rate for times in TIMES if rate > 0 and times * rate <= MOST}
    return {
        name: far * math.log(share / rate) + rest * (math.log1p(-share) - math.log1p(-rate))
        for name, share in shares.items()
    }
