"""Is the response, field by field, what a server makes of these tokens?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..evidence.forms import in_their_form
from ..evidence.leaves import compare, compare_by_choice
from ..evidence.response_forms import in_its_form
from ..foreign import printable
from ..protocol import FIELD_NAME
from ..report import Check
from .tokens import most_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic import JsonValue

    from ..evidence.evidence import Evidence
    from ..evidence.forms import Forms
    from ..evidence.leaves import Comparison, Difference, Logprobs
    from ..report import Status
    from ..thresholds.tokens import TokenBounds
    from ..tokens.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer that a server would have ended elsewhere: after `count` tokens, or None if it would have gone on."""

    choice: int
    claimed: int
    count: int | None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of letting a server's route answer the request with the claimed tokens.

    `comparison`: of the response with the rehearsed one, None if there is none, and `problem` says why. `choice`: which
    choice it is of, None for the whole response. `chunk_offsets`: of choices whose text is as the tokens say it, the
    characters at which each chunk begins, and at which the last ends.
    """

    comparison: Comparison | None = None
    ended: Ended | None = None
    problem: str | None = None
    choice: int | None = None
    chunk_offsets: Mapping[int, list[int]] = field(default_factory=dict)


def compared(
    evidence: Evidence,
    response: Mapping[str, Any],
    *,
    unbound: Collection[str],
    forms: Forms,
    logprobs: Logprobs | None = None,
    chunk_offsets: Mapping[int, list[int]] | None = None,
    sampling: Sampling | None = None,
) -> list[Rehearsed]:
    """What came of comparing the evidence's response with the rehearsed one, by `compare`'s options: of all of it, or,
    where some choices have no proofs, of each of the others and of the rest. `sampling`: options that the verifier's
    engine was handed, of a response of `/v1/responses`."""
    asked, claimed = evidence.source
    if evidence.route == "response":
        rehearsed = in_its_form(claimed, response, asked, sampling) if forms.other else response
    else:
        rehearsed = in_their_form(claimed, response, {answer.index: answer.token_ids for answer in evidence.answers})
    options: dict[str, Any] = {"logprobs": logprobs, "unbound": unbound, "forms": forms}
    options |= {"without": (FIELD_NAME,), "partial": evidence.partial}
    if evidence.unproven:
        parts = compare_by_choice(claimed, rehearsed, evidence.unproven, **options)
    else:
        parts = {None: compare(claimed, rehearsed, **options)}
    return [Rehearsed(part, choice=choice, chunk_offsets=chunk_offsets or {}) for choice, part in parts.items()]


def check_response(rehearsed: Rehearsed, bounds: TokenBounds) -> Check:
    """Judge the rehearsal.

    1. Every choice ends where the request, and the engine's own rules, let it end.
    2. There was a rehearsal.
    3. No leaf says other than the rehearsed one.
    4. No log-probability lies further than `bounds.margin` from the verifier's, and no more lie further than
       `bounds.near` than an honest answer's do, at `bounds.rate`, with a chance of 1e-3. The last two are
       no finer than the defaults (`TokenBounds.of_logprobs`).
    5. No leaf is written in a way that is another engine's, by the prover's word or since a text ends within a
       character.
    6. No leaf is one that no server writes, and none is left out.
    7. Every leaf was rehearsed.

    Reasons: `cut_short`, `past_the_end`, `unrehearsed`, `response_differs`, `logprobs_differ`, `other_engine`,
    `unfinished_character`, `unknown_field`, `missing_field`, `not_bound`.
    """
    return _of(rehearsed, bounds.of_logprobs()).model_copy(update={"choice": rehearsed.choice})


def _of(rehearsed: Rehearsed, bounds: TokenBounds) -> Check:
    if rehearsed.ended is not None:  # 1
        return _ends_elsewhere(rehearsed.ended)
    comparison = rehearsed.comparison
    if comparison is None:  # 2
        return _check("undecided", "unrehearsed", f"there was no rehearsal: {rehearsed.problem}", {})
    figures: dict[str, JsonValue] = {
        "leaves": comparison.leaves,
        "rehearsed": [*comparison.rehearsed],
        "free": [*comparison.free],
        "chunk_offsets": {str(index): [*offsets] for index, offsets in rehearsed.chunk_offsets.items()},
    }
    return (
        _differs(comparison, figures)  # 3
        or _beyond_noise(comparison, bounds, figures)  # 4
        or _of_another_form(comparison, figures)  # 5
        or _foreign(comparison, figures)  # 6
        or _unbound(comparison, figures)  # 7
        or _check("passed", None, f"all {comparison.leaves} leaves are what the tokens say", figures)
    )


def _check(status: Status, reason: str | None, message: str, figures: Mapping[str, JsonValue]) -> Check:
    return Check(name="response", status=status, reason=reason, message=message, figures={**figures})


def _ends_elsewhere(ended: Ended) -> Check:
    figures: dict[str, JsonValue] = {"choice": ended.choice, "tokens": ended.claimed, "ends_after": ended.count}
    if ended.count is None:
        message = f"choice {ended.choice} was cut short: nothing ends an answer after its {ended.claimed} tokens"
        return _check("failed", "cut_short", message, figures)
    message = f"choice {ended.choice} goes on for {ended.claimed} tokens where it ends after {ended.count}"
    return _check("failed", "past_the_end", message, figures)


def _differs(comparison: Comparison, figures: Mapping[str, JsonValue]) -> Check | None:
    found = comparison.first.get("differs")
    if found is None:
        return None
    message = f"{found.path} is {_shown(found.claimed)} where the tokens say {_shown(found.rehearsed)}"
    return _check("failed", "response_differs", message, {**figures, **_where(found)})


def _beyond_noise(comparison: Comparison, bounds: TokenBounds, figures: dict[str, JsonValue]) -> Check | None:
    """Puts the noise beside the figures that there are."""
    if not comparison.noise:
        return None
    count, worst = len(comparison.noise), max(comparison.noise)
    far, allowed = sum(one > bounds.near for one in comparison.noise), most_of(count, bounds.rate)
    figures |= {"logprobs": count, "worst": worst, "far": far, "allowed": allowed}
    if worst <= bounds.margin and far <= allowed:
        return None
    message = (
        f"{far} of {count} log-probabilities lie more than {bounds.near:g} from the model's own, {allowed} allowed; "
        f"the farthest is {worst:.3g} off, {bounds.margin:g} allowed"
    )
    return _check("failed", "logprobs_differ", message, figures)


def _of_another_form(comparison: Comparison, figures: Mapping[str, JsonValue]) -> Check | None:
    if (found := comparison.first.get("form")) is not None:
        message = (
            f"{found.path} is {_shown(found.claimed)} where this engine writes {_shown(found.rehearsed)}, and another "
            "kind of engine answered, which may write it otherwise"
        )
        return _check("undecided", "other_engine", message, {**figures, **_where(found)})
    if (found := comparison.first.get("unfinished")) is not None:
        message = (
            f"{found.path} ends within a character, which this engine writes otherwise: {_shown(found.claimed)} in "
            f"place of {_shown(found.rehearsed)}"
        )
        return _check("undecided", "unfinished_character", message, {**figures, **_where(found)})
    return None


def _foreign(comparison: Comparison, figures: Mapping[str, JsonValue]) -> Check | None:
    if (found := comparison.first.get("unknown")) is not None:
        message = f"{found.path} is {_shown(found.claimed)}, which no server of this kind writes there"
        return _check("undecided", "unknown_field", message, {**figures, **_where(found)})
    if (found := comparison.first.get("missing")) is not None:
        message = f"{found.path} is left out, which a server writes: {_shown(found.rehearsed)}"
        return _check("undecided", "missing_field", message, {**figures, **_where(found)})
    return None


def _unbound(comparison: Comparison, figures: Mapping[str, JsonValue]) -> Check | None:
    if not comparison.unbound:
        return None
    names = [*comparison.unbound]
    message = f"this verifier cannot tell what has to be in {', '.join(names[:5])}"
    return _check("undecided", "not_bound", message, {**figures, "unbound": [*names]})


def _where(found: Difference) -> dict[str, JsonValue]:
    return {"path": found.path, "claimed": found.claimed, "expected": found.rehearsed}


def _shown(value: str | None) -> str:
    return "nothing" if value is None else printable(value)
