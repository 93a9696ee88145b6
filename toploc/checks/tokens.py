"""Are the tokens what this model says, or were they written otherwise and run through it afterwards?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from ..report import Check, quote
from ..tokens.surprisal import whole_answer, worst_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from ..evidence.evidence import Answer
    from ..thresholds.tokens import TokenBounds
    from ..tokens.sampling import Sampling
    from ..tokens.scores import TokenScores

LISTED: Final = 10
"""Positions that the figures list."""

MANY: Final = 1e-3
"""The chance with which an honest answer has more tokens beyond `near` than are allowed."""


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
    3. Greedy answers: no token has a margin max l - l_y above `bounds.margin`, and no more have one above `bounds.near`
       than an honest answer has, at `bounds.rate`, with a chance of `MANY`. This is DiFR's margin at temperature 0.
    4. Seeded answers: their seed is the request's, where it has one; the same of margins under the sampler's own noise.
       This is DiFR's margin.
    5. All sampled answers: no token lies further than `bounds.support` outside of what top-k, top-p and min-p leave.
    6. z = sum(s - H) / sqrt(sum V), of surprisal s, entropy H and variance V of the surprisal at each token, is at most
       `bounds.z`, or an answer of the model is as surprising with a chance above `bounds.chance`
       (`surprisal.whole_answer`). One-sided: text that is less surprising than the model's own passes.
    7. So is each window: an answer of the model has one as surprising as the worst with a chance above
       `bounds.window_chance` (`surprisal.worst_window`).
    8. Where the noise of a seeded answer is not known, nothing found is not enough: skipped.

    `sampling` has the choice's own seed. `decode` gives the text of tokens for the message. Reasons: `options`,
    `no_logits`, `margin`, `seed_differs`, `replay`, `support`, `surprisal`, `window`, `seed`.
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

    def beyond(
        distance: NDArray[np.float64],
        reason: str,
        what: str,
        *,
        near: float = bounds.near,
        allowed: int = most_of(count, bounds.rate),
        most: float = bounds.margin,
        prefix: str = "",
    ) -> Check | None:
        """The check's result, if any token lies too far, or too many do; puts their figures beside those there are."""
        far, worst = np.flatnonzero(distance > near), float(distance.max())
        listed: list[JsonValue] = [int(place) for place in far[:LISTED]]
        found: dict[str, JsonValue] = {"worst": worst, "far": len(far), "far_at": listed, "allowed": allowed}
        figures.update({prefix + name: value for name, value in found.items()})
        if worst <= most and len(far) <= allowed:
            return None
        where = _where(int(distance.argmax()), answer, scores, decode)
        message = (
            f"{len(far)} of {count} tokens lie more than {near:g} from {what}, {allowed} allowed; the farthest is "
            f"{where}, {worst:.3g} off, {most:g} allowed"
        )
        return result("failed", reason, message, **figures)

    figures: dict[str, JsonValue] = {}
    if sampling.greedy:  # 3
        message = f"greedy: the model says the same {count} tokens, with margins of {scores.margin.max():.3g} at most"
        failed = beyond(scores.margin, "margin", "what greedy decoding says")
        return failed or result("passed", None, message, **figures)
    claimed = answer.proofs.seed
    if claimed is not None and claimed != sampling.seed:  # 4
        return result("failed", "seed_differs", f"the server drew with seed {claimed}, not {sampling.seed}")
    if scores.replay is not None:
        what = f"what {sampling.sampler} draws with seed {sampling.seed}"
        failed = beyond(scores.replay, "replay", what, prefix="replay_")
        if failed is not None:
            return failed
    most = bounds.support  # 5
    failed = beyond(scores.cut, "support", "what sampling leaves", near=most, allowed=0, most=most)
    if failed is not None:
        return failed
    whole, window = whole_answer(scores), worst_window(scores)
    figures |= {"z": whole.z, "chance": whole.chance, "surprisal": float(scores.surprisal.sum())}
    figures |= {"entropy": float(scores.entropy.sum())}
    figures |= {"window": [window.first, window.last], "window_z": window.z, "window_chance": window.chance}
    for found, reason, is_beyond in (
        (whole, "surprisal", whole.z > bounds.z and whole.chance < bounds.chance),  # 6
        (window, "window", window.chance < bounds.window_chance),  # 7
    ):
        if is_beyond:
            worst = (scores.surprisal - scores.entropy)[found.first : found.last + 1].argmax()
            where = _where(found.first + int(worst), answer, scores, decode)
            message = (
                f"tokens {found.first}-{found.last} are {found.excess:.3g} nats more surprising than the model's own, "
                f"z {found.z:.3g}, which has a chance of {found.chance:.2g} at most; most of all {where}"
            )
            return result("failed", reason, message, **figures)
    if scores.replay is not None:
        worst = scores.replay.max()
        message = f"seeded: {sampling.sampler} draws the same {count} tokens, with margins of {worst:.3g} at most"
        return result("passed", None, message, **figures)
    if sampling.seed is not None:  # 8
        message = "nothing found, but what drew the noise of this seeded answer is not known"
        return result("skipped", "seed", message, **figures)
    message = f"sampled: {count} tokens as surprising as the model's own, z {whole.z:.3g}"
    return result("passed", None, message, **figures)


def most_of(count: int, rate: float) -> int:
    """The least c such that of `count` tokens more than c are of a kind with a chance below `MANY`, if each is with
    chance `rate`."""
    if rate in (0, 1):
        return round(count * rate)
    total = 0.0
    for number in range(count):
        ways = math.lgamma(count + 1) - math.lgamma(number + 1) - math.lgamma(count - number + 1)
        total += math.exp(ways + number * math.log(rate) + (count - number) * math.log1p(-rate))
        if 1 - total < MANY:
            return number
    return count


def _where(place: int, answer: Answer, scores: TokenScores, decode: Callable[[Sequence[int]], str]) -> str:
    said = quote(decode(answer.token_ids[place : place + 1]))
    return f"token {place}, {said} where the model prefers {quote(decode([int(scores.best[place])]))}"
