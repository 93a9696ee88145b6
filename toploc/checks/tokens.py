"""Are the tokens what this model says, or were they written otherwise and run through it afterwards?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..report import Check, quote
from ..surprisal import whole_answer, worst_window

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
    4. Seeded answers: their seed is the request's, where it has one; no more than `bounds.rate` of the tokens have a
       margin above `bounds.margin` under the sampler's own noise. This is DiFR's margin.
    5. All sampled answers: no more than `bounds.rate` of the tokens lie further than `bounds.margin` outside of what
       top-k, top-p and min-p leave.
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
    allowed = math.floor(bounds.rate * count)
    if sampling.greedy:  # 3
        far = np.flatnonzero(scores.margin > bounds.margin)
        margins = _distances(scores.margin, far)
        if len(far) <= allowed:
            message = (
                f"greedy: the model says the same {count} tokens, with margins of {scores.margin.max():.3g} at most"
            )
            return result("passed", None, message, **margins)
        where = _where(int(scores.margin.argmax()), answer, scores, decode)
        message = f"{len(far)} of {count} tokens are not what greedy decoding says, {allowed} allowed; the farthest is "
        worst = scores.margin.max()
        return result("failed", "margin", f"{message}{where}, {worst:.3g} below, {bounds.margin:g} allowed", **margins)
    claimed = answer.proofs.seed
    if claimed is not None and claimed != sampling.seed:  # 4
        return result("failed", "seed_differs", f"the server drew with seed {claimed}, not {sampling.seed}")
    figures: dict[str, JsonValue] = {}
    if scores.replay is not None:
        far = np.flatnonzero(scores.replay > bounds.margin)
        figures = {f"replay_{name}": value for name, value in _distances(scores.replay, far).items()}
        if len(far) > allowed:
            where = _where(int(scores.replay.argmax()), answer, scores, decode)
            message = (
                f"{len(far)} of {count} tokens are not what {sampling.sampler} draws with seed {sampling.seed}, "
                f"{allowed} allowed; the farthest is {where}, {scores.replay.max():.3g} below, "
                f"{bounds.margin:g} allowed"
            )
            return result("failed", "replay", message, **figures)
    far = np.flatnonzero(scores.cut > bounds.margin)  # 5
    figures |= _distances(scores.cut, far)
    whole, window = whole_answer(scores), worst_window(scores)
    figures |= {"z": whole.z, "chance": whole.chance, "surprisal": float(scores.surprisal.sum())}
    figures |= {"entropy": float(scores.entropy.sum())}
    figures |= {"window": [window.first, window.last], "window_z": window.z, "window_chance": window.chance}
    if len(far) > allowed:
        where = _where(int(scores.cut.argmax()), answer, scores, decode)
        message = (
            f"{len(far)} of {count} tokens are none that sampling leaves, {allowed} allowed; the farthest is {where}"
        )
        return result("failed", "support", message, **figures)
    for found, reason, failed in (
        (whole, "surprisal", whole.z > bounds.z and whole.chance < bounds.chance),  # 6
        (window, "window", window.chance < bounds.window_chance),  # 7
    ):
        if failed:
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
        return result(
            "skipped", "seed", "nothing found, but what drew the noise of this seeded answer is not known", **figures
        )
    message = f"sampled: {count} tokens as surprising as the model's own, z {whole.z:.3g}"
    return result("passed", None, message, **figures)


def _distances(distance: np.ndarray, far: np.ndarray) -> dict[str, JsonValue]:
    listed: list[JsonValue] = [int(place) for place in far[:LISTED]]
    return {"worst": float(distance.max()), "far": len(far), "far_at": listed}


def _where(place: int, answer: Answer, scores: TokenScores, decode: Callable[[Sequence[int]], str]) -> str:
    said = quote(decode(answer.token_ids[place : place + 1]))
    return f"token {place}, {said} where the model prefers {quote(decode([int(scores.best[place])]))}"
