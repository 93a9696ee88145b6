"""Are the tokens what this model says, or were they written otherwise and run through it afterwards?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..report import Check, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import JsonValue

    from ..evidence import Answer
    from ..sampling import Sampling
    from ..scores import TokenScores
    from ..token_bounds import TokenBounds

LISTED = 10
"""Positions that the figures list."""


def check_tokens(
    answer: Answer,
    sampling: Sampling,
    scores: TokenScores | None,
    bounds: TokenBounds,
    *,
    decode: Callable[[Sequence[int]], str],
) -> Check:
    """Hold the answer's tokens against the verifier's own logits.

    1. Options that cannot be replayed from logits (grammars, bad words, …) leave nothing to compare: skipped.
    2. The verifier has logits.
    3. Greedy answers: no more than `bounds.rate` of the tokens have a margin max l - l_y above `bounds.margin`.
       This is DiFR's margin at temperature 0.
    4. Seeded answers are skipped: their margins need the noise of the engine's sampler.
    5. Other sampled answers: no more than `bounds.rate` of the tokens lie further than `bounds.margin` outside of what
       top-k, top-p and min-p leave.
    6. z = sum(s - H) / sqrt(sum V), of surprisal s, entropy H and variance V of the surprisal at each token, is at most
       `bounds.z`, or Chernoff's bound min over λ of exp(sum K(λ) - λ sum s), K the surprisal's cumulant function, says
       that an answer of the model is as surprising with a chance above `bounds.chance`. One-sided: text that is less
       surprising than the model's own passes.

    `decode` gives the text of tokens for the message. Reasons: `options`, `no_logits`, `margin`, `seed`, `support`,
    `surprisal`.
    """

    def result(status: str, reason: str | None, message: str, **figures: JsonValue) -> Check:
        return Check.model_validate(
            {
                "name": "tokens",
                "status": status,
                "choice": answer.index,
                "reason": reason,
                "message": message,
                "figures": {"tokens": len(answer.token_ids), **figures},
                "thresholds": bounds.model_dump(),
            }
        )

    if sampling.other:  # 1
        names = ", ".join(quote(name) for name in sampling.other[:5])
        return result("skipped", "options", f"the request has options that cannot be replayed: {names}")
    if scores is None:  # 2
        return result("skipped", "no_logits", "the verifier has no logits for this answer")
    count = len(answer.token_ids)
    allowed = math.floor(bounds.rate * count)
    if sampling.greedy:  # 3
        far = np.flatnonzero(scores.margin > bounds.margin)
        figures = _distances(scores.margin, far)
        if len(far) <= allowed:
            message = (
                f"greedy: the model says the same {count} tokens, with margins of {scores.margin.max():.3g} at most"
            )
            return result("passed", None, message, **figures)
        where = _where(int(scores.margin.argmax()), answer, scores, decode)
        message = f"{len(far)} of {count} tokens are not what greedy decoding says, {allowed} allowed; the farthest is "
        worst = scores.margin.max()
        return result("failed", "margin", f"{message}{where}, {worst:.3g} below, {bounds.margin:g} allowed", **figures)
    if sampling.seed is not None:  # 4
        return result("skipped", "seed", "a seeded answer is replayed with the noise of the engine's own sampler")
    far = np.flatnonzero(scores.cut > bounds.margin)  # 5
    figures = _distances(scores.cut, far)
    excess = float((scores.surprisal - scores.entropy).sum())
    deviation = math.sqrt(float(scores.variance.sum()))
    z = excess / deviation if deviation > 0 else 0.0
    chance = _chance(scores)
    figures |= {"z": z, "chance": chance, "surprisal": float(scores.surprisal.sum())}
    figures |= {"entropy": float(scores.entropy.sum())}
    if len(far) > allowed:
        where = _where(int(scores.cut.argmax()), answer, scores, decode)
        message = (
            f"{len(far)} of {count} tokens are none that sampling leaves, {allowed} allowed; the farthest is {where}"
        )
        return result("failed", "support", message, **figures)
    if z > bounds.z and chance < bounds.chance:  # 6
        where = _where(int((scores.surprisal - scores.entropy).argmax()), answer, scores, decode)
        message = (
            f"the {count} tokens are {excess:.3g} nats more surprising than the model's own, z {z:.3g} with "
            f"{bounds.z:g} allowed; most of all {where}"
        )
        return result("failed", "surprisal", message, **figures)
    return result("passed", None, f"sampled: {count} tokens as surprising as the model's own, z {z:.3g}", **figures)


def _distances(distance: np.ndarray, far: np.ndarray) -> dict[str, JsonValue]:
    listed: list[JsonValue] = [int(place) for place in far[:LISTED]]
    return {"worst": float(distance.max()), "far": len(far), "far_at": listed}


def _chance(scores: TokenScores) -> float:
    """Chernoff's bound on P(sum of surprisals >= the answer's); the cumulants' λ are those of `scores.POWERS`."""
    from ..scores import POWERS

    exponents = scores.cumulants.sum(axis=0) - np.array(POWERS) * scores.surprisal.sum()
    return float(np.exp(min(0.0, exponents.min())))


def _where(place: int, answer: Answer, scores: TokenScores, decode: Callable[[Sequence[int]], str]) -> str:
    said = quote(decode(answer.token_ids[place : place + 1]))
    return f"token {place}, {said} where the model prefers {quote(decode([int(scores.best[place])]))}"
