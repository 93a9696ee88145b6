"""A table of what was found of each prover by each verifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from folder import HONEST

from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from folder import Held
    from numpy.typing import NDArray

ROWS = 32
"""Of the chunks that are compared; an answer's last may have fewer."""


def rows(held: Sequence[Held], names: Sequence[str]) -> list[dict[str, Any]]:
    """One for each prover, weights and verifier.

    Args:
        names: of the thresholds that chunks are held against.
    """
    found = []
    bounds = {name: Thresholds.load(name) for name in names}
    keys = dict.fromkeys((one.prover, one.weights, one.verifier) for one in held)
    for prover, weights, verifier in keys:
        mine = [one for one in held if (one.prover, one.weights, one.verifier) == (prover, weights, verifier)]
        chunks = np.array([chunk for one in mine for chunk in one.chunks])
        honest = [one for one in held if (one.prover, one.weights, one.verifier) == (prover, HONEST, verifier)]
        found.append(
            {
                "prover": prover,
                "weights": weights,
                "verifier": verifier,
                "answers": len(mine),
                "chunks": len(chunks),
                "mismatches, mean": round(float(chunks[:, 0].mean()), 2),
                "mismatches, 99 %": int(np.quantile(chunks[:, 0], 0.99, method="higher")),
                "mismatches, most": int(chunks[:, 0].max()),
                "mantissa mean, 99 %": round(float(np.quantile(chunks[:, 1], 0.99, method="higher")), 2),
                "mantissa mean, most": round(float(chunks[:, 1].max()), 2),
                **{f"answers beyond {name}": sum(beyond(one, bounds[name]) for one in mine) for name in names},
                "by mean error": area(means(honest), means(mine)) if weights != HONEST and honest else "",
            }
        )
    return found


def beyond(held: Held, thresholds: Thresholds) -> bool:
    """Whether one of its chunks is."""
    bounds = thresholds.for_rows(ROWS)
    limits = bounds.mismatches, bounds.mantissa_mean, bounds.mantissa_median
    return any(figure > limit for chunk in held.chunks for figure, limit in zip(chunk, limits, strict=True))


def means(held: Sequence[Held]) -> NDArray[np.float64]:
    """Of each answer, the mean over its chunks of mismatches plus mantissa mean."""
    return np.array([float(np.mean([chunk[0] + chunk[1] for chunk in one.chunks])) for one in held])


def area(honest: NDArray[np.float64], altered: NDArray[np.float64]) -> float:
    """Under the receiver operating characteristic: the chance that an altered answer's is higher, ties by half."""
    ordered = np.sort(honest)
    below = np.searchsorted(ordered, altered, "left") + np.searchsorted(ordered, altered, "right")
    return round(float(below.mean() / 2 / ordered.size), 3)


def markdown(found: Sequence[dict[str, Any]]) -> str:
    heads = list(found[0])
    lines = [heads, ["---"] * len(heads), *([str(one[head]) for head in heads] for one in found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
