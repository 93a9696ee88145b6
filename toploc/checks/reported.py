"""Are the log-probabilities that a response reports the model's own? Of answers without proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..evidence.tokenised import UNSAID
from ..report import UNPROVEN, Check
from .tokens import most_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ..evidence.evidence import Answer
    from ..thresholds.tokens import TokenBounds

LEAST: Final = -20.0
"""Log-probabilities below are taken for this: in single precision, and in what servers write, they are noise."""


def check_reported(
    answer: Answer, reported: tuple[float, ...], own: Mapping[str, NDArray[np.float64]], bounds: TokenBounds
) -> Check:
    """Compare the log-probability of each token with the verifier's, which may be of several kinds.

    `own`, by kind: float64[n], before any option, as most servers report them, or of the distribution that is drawn
    from. The provider's kind is the one that lies nearest. A token may be `bounds.margin` off at most, and no more may
    be beyond `bounds.near` than chance allows; `bounds` are those of log-probabilities (`of_logprobs`).

    The figure `error` is the mean distance. Reasons: `logprobs_differ`; weak: `unproven`.
    """
    said = np.maximum(np.array(reported), LEAST)
    told = np.array(reported) > UNSAID
    distances = {kind: np.abs(said - np.maximum(values[: len(said)], LEAST))[told] for kind, values in own.items()}
    kind = min(distances, key=lambda name: float(distances[name].mean()) if told.any() else 0.0)
    distance = distances[kind]
    far, worst = int((distance > bounds.near).sum()), float(distance.max(initial=0.0))
    allowed = most_of(len(distance), bounds.rate)
    error = float(distance.mean()) if len(distance) else 0.0
    failed = worst > bounds.margin or far > allowed
    message = (
        f"the log-probabilities of {len(distance)} tokens are {error:.3g} off on average, {far} of them more than "
        f"{bounds.near:g}, {allowed} allowed, and {worst:.3g} at most, {bounds.margin:g} allowed"
    )
    return Check(
        name="response",
        status="failed" if failed else "weak",
        choice=answer.index,
        reason="logprobs_differ" if failed else UNPROVEN,
        message=message if failed else f"{message}; nothing else of the response is held against anything",
        figures={"tokens": len(distance), "kind": kind, "error": error, "far": far, "worst": worst},
        thresholds=bounds.model_dump(),
    )
