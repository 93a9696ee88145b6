"""The options under which an answer without proofs may have been drawn, where its request does not say all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..evidence.candidates import OPTIONS
from ..tokens.noise import SAMPLERS
from ..tokens.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from ..evidence.evidence import Evidence
    from ..report import Check, Report

RATIOS: Final = ("log_ratios", "margin_ratios")
"""Figures of the check on tokens that are summed up over answers."""


@dataclass(frozen=True, slots=True)
class Variant:
    """`options`: what is taken for the request's own, and `sampler`, if one is tried."""

    options: Mapping[str, Any]
    evidence: Evidence


def swept(evidence: Evidence, *, knows_defaults: bool) -> list[Variant]:
    """The evidence under each candidate, without those that come to the same.

    1. An option that the request gives is that. Of others the candidates are the evidence's own (`sampling`), or the
       model's defaults and OpenAI's. Without `knows_defaults` the model's are only known to the server's route.
    2. A seed may have been drawn with by any sampler that is known, or by another, which is tried last.
    """
    body = evidence.source[0]
    given = body.get("sampling_params") if evidence.route == "generate" else body
    unknown = [name for name in OPTIONS if not isinstance(given, dict) or given.get(name) is None]
    listed: Sequence[Mapping[str, float]] = evidence.candidates or ({}, OPTIONS)
    variants: list[Variant] = []
    for candidate in listed:  # 1
        options = {name: candidate[name] for name in unknown if name in candidate}
        sampling = Sampling.model_validate({**evidence.sampling.model_dump(), **options})
        known = [variant.evidence.sampling if knows_defaults else variant.options for variant in variants]
        if (sampling if knows_defaults else options) not in known:
            variants.append(Variant(options, _under(evidence, options, sampling)))
    if evidence.sampling.seed is None:
        return variants
    return [one for variant in variants for one in _drawn(variant)]  # 2


def _under(evidence: Evidence, options: Mapping[str, float], sampling: Sampling) -> Evidence:
    body = evidence.source[0]
    if evidence.route == "generate":
        asked = {**body, "sampling_params": {**body["sampling_params"], **options}}
    else:
        asked = {**body, **options}
    return replace(evidence, sampling=sampling, source=(asked, evidence.source[1]))


def _drawn(variant: Variant) -> list[Variant]:
    evidence = variant.evidence
    if evidence.sampling.greedy:
        return [variant]
    return [
        Variant(
            {**variant.options, "sampler": sampler},
            replace(evidence, proofs=evidence.proofs.model_copy(update={"sampler": sampler})),
        )
        for sampler in (*SAMPLERS, None)
    ]


def best_of_variants(found: Sequence[tuple[Variant, Report]]) -> Report:
    """The report under the variant that finds least, the first of several; with what every variant found (`swept`).

    An honest provider draws under one of them. So what all others find accuses nobody, and sums over answers are to be
    kept by variant.
    """
    if len(found) == 1:
        return found[0][1]
    _, best = min(found, key=lambda pair: _badness(pair[1]))
    checks = [_with_sweep(check, found) if check.name == "tokens" else check for check in best.checks]
    return best.model_copy(update={"checks": tuple(checks)})


def _badness(report: Report) -> int:
    return 0 if report.weak else 1 if report.verdict != "rejected" else 2


def _with_sweep(check: Check, found: Sequence[tuple[Variant, Report]]) -> Check:
    swept: list[JsonValue] = []
    for variant, report in found:
        same = (one for one in report.checks if one.name == "tokens" and one.choice == check.choice)
        other = next(same, None)
        if other is not None:
            ratios: dict[str, JsonValue] = {name: other.figures[name] for name in RATIOS if name in other.figures}
            swept.append({"options": {**variant.options}, "status": other.status, "reason": other.reason, **ratios})
    return check.model_copy(update={"figures": {**check.figures, "swept": swept}})
