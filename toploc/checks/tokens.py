"""Are the tokens what this model says, or were they written otherwise and run through it afterwards?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from ..foreign import quote
from ..report import Check
from ..tokens.found import found_at
from ..tokens.margins import margin_ratios
from ..tokens.masks import UNCONSTRAINED, Constraint, Forbidden
from ..tokens.surprisal import equal_choices, log_ratios, rarest_token, whole_answer, worst_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from ..evidence.evidence import Answer
    from ..report import Status
    from ..thresholds.tokens import TokenBounds
    from ..tokens.sampling import Sampling
    from ..tokens.scores import TokenScores
    from ..tokens.surprisal import Surprise

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
    constraint: Constraint = UNCONSTRAINED,
) -> Check:
    """Hold the answer's tokens against the verifier's own logits.

    1. Constraints that cannot be replayed (processors of logits, …) leave nothing to compare: skipped.
    2. Those that can (grammars, bad words, allowed ids) were followed, and forbid no token.
    3. The verifier has logits.
    4. Greedy answers, and all whose options leave one token: no token has a margin max l - l_y above `bounds.margin`,
       and no more have one above `bounds.near` than an honest answer has, at `bounds.rate`, with a chance of `MANY`.
       This is DiFR's margin at temperature 0.
    5. Seeded answers: their seed is the request's, where it has one; the same of margins under the sampler's own noise.
       This is DiFR's margin.
    6. All sampled answers: no token lies further than `bounds.support` outside of what top-k, top-p and min-p leave,
       and no more lie outside than of an honest answer, at `bounds.outside`, with a chance of `MANY`.
    7. An answer of the model is as surprising with a chance above `bounds.chance`; one of its windows with a chance
       above `bounds.window_chance`; one of its tokens with a chance above `bounds.token_chance` (`tokens.surprisal`).
    8. The same of the lack of surprise in an answer and in its windows: of text at a lower temperature.
    9. Where the noise of a seeded answer is not known, nothing found is not enough: undecided.
    10. Without a seed nothing found is weak: the message says what share of others' text would have been.

    `sampling` has the choice's own seed. `decode` gives the text of tokens for the message. Reasons: `options`,
    `constraint`, `forbidden`, `no_logits`, `margin`, `seed_differs`, `replay`, `support`, `surprisal`, `window`,
    `rare_token`, `unsurprising`, `unsurprising_window`, `seed`, `unseeded`.
    """
    if sampling.other:  # 1
        names = ", ".join(quote(name) for name in sampling.other[:5])
        message = f"the request has constraints that cannot be replayed: {names}"
        return _check(answer, bounds, "skipped", "options", message)
    if constraint.problem:  # 2
        return _check(answer, bounds, "undecided", "constraint", f"cannot be followed: {constraint.problem}")
    if constraint.forbidden is not None:
        return _forbidden(answer, bounds, constraint.forbidden, decode)
    if scores is None:  # 3
        return _check(answer, bounds, "skipped", "no_logits", "the verifier has no logits for this answer")
    held = _Held(answer, sampling, scores, bounds, decode)
    if sampling.greedy:
        return _greedy(held)  # 4
    failed = (
        _another_seed(held)  # 5
        or _other_draws(held)  # 5
        or _outside_of_support(held)  # 6
    )
    if failed is not None:
        return failed
    return (
        _unlike_the_models(held)  # 7, 8
        or _nothing_found(held)  # 9, 10
    )


def check_equal_choices(
    answers: Sequence[tuple[Answer, Sampling, TokenScores | None]], bounds: TokenBounds
) -> Check | None:
    """The failed check, if choices of one prompt are more equal than independent draws are, with a chance below
    `bounds.chance`; of all those that are sampled and that the verifier has scores of. Reason: `equal_choices`."""
    drawn = [
        (answer, scores)
        for answer, sampling, scores in answers
        if scores is not None and not sampling.greedy and not sampling.other
    ]
    equal = equal_choices([answer.token_ids for answer, _ in drawn], [scores for _, scores in drawn])
    if equal is None or equal.chance >= bounds.chance:
        return None
    choices = [drawn[place][0].index for place in equal.places]
    named = ", ".join(map(str, choices[:LISTED])) + (", …" if len(choices) > LISTED else "")
    return Check(
        name="tokens",
        status="failed",
        reason="equal_choices",
        message=f"choices {named} begin with the same {equal.tokens} tokens; of {len(drawn)} choices that the model "
        f"draws, any do that with a chance of {equal.chance:.2g} at most",
        figures={"choices": [*choices], "equal_tokens": equal.tokens, "chance": equal.chance},
        thresholds=bounds.model_dump(),
    )


def _check(
    answer: Answer,
    bounds: TokenBounds,
    status: Status,
    reason: str | None,
    message: str,
    figures: Mapping[str, JsonValue] = MappingProxyType({}),
) -> Check:
    return Check(
        name="tokens",
        status=status,
        choice=answer.index,
        reason=reason,
        message=message,
        figures={"tokens": len(answer.token_ids), **figures},
        thresholds=bounds.model_dump(),
    )


def _forbidden(answer: Answer, bounds: TokenBounds, found: Forbidden, decode: Callable[[Sequence[int]], str]) -> Check:
    place, option = found
    token = quote(decode(answer.token_ids[place : place + 1]))
    message = f"token {place}, {token}, is none that {option} leaves there"
    return _check(answer, bounds, "failed", "forbidden", message, {"place": place, "option": option})


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer that is held against the verifier's logits, and the figures of the steps so far."""

    answer: Answer
    sampling: Sampling
    scores: TokenScores
    bounds: TokenBounds
    decode: Callable[[Sequence[int]], str]
    figures: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.answer.token_ids)

    def check(self, status: Status, reason: str | None, message: str) -> Check:
        return _check(self.answer, self.bounds, status, reason, message, self.figures)

    def describe(self, place: int) -> str:
        """The token at a place, and the model's own."""
        token, best = (
            quote(self.decode(ids))
            for ids in (self.answer.token_ids[place : place + 1], [int(self.scores.best[place])])
        )
        return f"token {place}, {token} where the model prefers {best}"


def _too_far(
    held: _Held,
    distance: NDArray[np.float64],
    reason: str,
    what: str,
    *,
    near: float,
    allowed: int,
    most: float,
    prefix: str = "",
) -> Check | None:
    """The failed check, if any token lies further than `most` from `what`, or more than `allowed` further than `near`.

    `distance` is float64[n], in logits. Puts the figures beside those there are, with names that begin with `prefix`.
    """
    far, worst = np.flatnonzero(distance > near), float(distance.max())
    listed: list[JsonValue] = [int(place) for place in far[:LISTED]]
    figures: dict[str, JsonValue] = {"worst": worst, "far": len(far), "far_at": listed, "allowed": allowed}
    held.figures.update({prefix + name: value for name, value in figures.items()})
    if worst <= most and len(far) <= allowed:
        return None
    message = (
        f"{len(far)} of {held.count} tokens lie more than {near:g} from {what}, {allowed} allowed; the farthest is "
        f"{held.describe(int(distance.argmax()))}, {worst:.3g} off, {most:g} allowed"
    )
    return held.check("failed", reason, message)


def _greedy(held: _Held) -> Check:
    margin, bounds = held.scores.margin, held.bounds
    allowed = most_of(held.count, bounds.rate)
    what = "what greedy decoding says"
    held.figures["matched"] = int((margin == 0).sum())
    held.figures["margin_ratios"] = {**margin_ratios(margin, bounds.near, bounds.rate)}
    failed = _too_far(held, margin, "margin", what, near=bounds.near, allowed=allowed, most=bounds.margin)
    message = f"greedy: the model says the same {held.count} tokens, with margins of {margin.max():.3g} at most"
    return failed or held.check("passed", None, message)


def _another_seed(held: _Held) -> Check | None:
    claimed, asked = held.answer.proofs.seed, held.sampling.seed
    if claimed is None or claimed == asked:
        return None
    return held.check("failed", "seed_differs", f"the server drew with seed {claimed}, not {asked}")


def _other_draws(held: _Held) -> Check | None:
    if held.scores.replay is None:
        return None
    bounds, sampling = held.bounds, held.sampling
    held.figures["margin_ratios"] = {**margin_ratios(held.scores.replay, bounds.near, bounds.rate)}
    return _too_far(
        held,
        held.scores.replay,
        "replay",
        f"what {sampling.sampler} draws with seed {sampling.seed}",
        near=bounds.near,
        allowed=most_of(held.count, bounds.rate),
        most=bounds.margin,
        prefix="replay_",
    )


def _outside_of_support(held: _Held) -> Check | None:
    bounds = held.bounds
    allowed, what = most_of(held.count, bounds.outside), "what sampling leaves"
    return _too_far(held, held.scores.cut, "support", what, near=0, allowed=allowed, most=bounds.support)


def _unlike_the_models(held: _Held) -> Check | None:
    scores, bounds = held.scores, held.bounds
    whole, window, token = whole_answer(scores), worst_window(scores), rarest_token(scores)
    low, low_window = whole_answer(scores, low=True), worst_window(scores, low=True)
    held.figures.update(
        z=whole.z,
        chance=whole.chance,
        surprisal=float(scores.surprisal.sum()),
        entropy=float(scores.entropy.sum()),
        window=[window.first, window.last],
        window_z=window.z,
        window_chance=window.chance,
        rarest=token.first,
        token_chance=token.chance,
        low_chance=low.chance,
        low_window=[low_window.first, low_window.last],
        low_window_z=low_window.z,
        low_window_chance=low_window.chance,
        log_ratios={**log_ratios(scores)},
    )
    for part, least, reason in (
        (whole, bounds.chance, "surprisal"),
        (window, bounds.window_chance, "window"),
        (token, bounds.token_chance, "rare_token"),
        (low, bounds.chance, "unsurprising"),
        (low_window, bounds.window_chance, "unsurprising_window"),
    ):
        if part.chance < least:
            return _unlike(held, part, reason)
    return None


def _unlike(held: _Held, part: Surprise, reason: str) -> Check:
    low = reason.startswith("unsurprising")
    excess = (held.scores.surprisal - held.scores.entropy)[part.first : part.last + 1]
    most = part.first + int(excess.argmin() if low else excess.argmax())
    message = (
        f"tokens {part.first}-{part.last} are {abs(part.excess):.3g} nats {'less' if low else 'more'} surprising than "
        f"the model's own, z {part.z:.3g}, which has a chance of {part.chance:.2g} at most; most of all "
        f"{held.describe(most)}"
    )
    return held.check("failed", reason, message)


def _nothing_found(held: _Held) -> Check:
    sampling, replay = held.sampling, held.scores.replay
    if replay is not None:
        drawn = f"{sampling.sampler} draws the same {held.count} tokens"
        return held.check("passed", None, f"seeded: {drawn}, with margins of {replay.max():.3g} at most")
    if sampling.seed is not None:
        message = "nothing found, but what drew the noise of this seeded answer is not known"
        return held.check("undecided", "seed", message)
    message = (
        f"sampled without a seed: {held.count} tokens as surprising as the model's own, z {held.figures['z']:.3g}; "
        f"{found_at(held.count)}"
    )
    return held.check("weak", "unseeded", message)


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
