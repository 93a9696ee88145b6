"""Is the error of all of an answer's chunks together what the honest engine's is?"""

from __future__ import annotations

import math
from functools import partial
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..pooling.spread import chunk_scores
from ..report import Check
from ..scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from ..engine import Engine
    from ..report import Status
    from ..thresholds.pooled import PooledBounds


def check_pooled(proofs: Check, bounds: PooledBounds, name: str, engine: Engine | None = None) -> Check:
    """Hold the error of an answer, over its whole chunks, against that of honest answers.

    1. The check `proofs` compared the chunks, and one of them is whole: shorter ones are noisier.
    2. The score is the mean of the chunks' errors by channel, where the bounds have the channels' noise; else that of
       the logarithms of their mean mantissa errors.
    3. It lies at most `bounds.bound` standard deviations above the mean of honest answers of as many chunks. Below
       nothing is refused: more precision than the model's lies there, and says nothing of other weights.
    4. For each copy, the figure `evidence` is the log-likelihood ratio that `toploc audit` sums up over answers.

    `name` is that of the thresholds; `engine` the prover's word on its own. Where that is another than the bounds are
    for, nothing is compared, and since a prover may say what it likes, the answer is not accepted either. Reasons:
    `pooled_error`; undecided: `not_comparable`; skipped: `not_compared`, `no_whole_chunk`, `no_bound`.
    """

    result = partial(_check, proofs.choice, bounds, name)
    if "chunks" not in proofs.figures:  # 1
        return result("skipped", "not_compared", "the chunks were not compared")
    figure = "mantissa_mean" if bounds.noise is None else "channel_error"
    found = list(_whole_chunks(proofs, figure))
    scores = chunk_scores(found) if bounds.noise is None else found
    if not scores:
        return result("skipped", "no_whole_chunk", f"the answer has no chunk of {CHUNK_SIZE} tokens")
    if engine is not None and not bounds.engine.describe(engine):
        message = f"the prover says that it is {engine}; these bounds are for {bounds.engine}"
        return result("undecided", "not_comparable", message)
    score = fmean(scores)  # 2
    deviations = bounds.honest.deviations(score, len(scores))  # 3
    ratios: dict[str, JsonValue] = {copy: bounds.alternative(copy).log_ratio(scores) for copy in bounds.copies}  # 4
    figures: dict[str, JsonValue] = {"chunks": len(scores), "score": score, "deviations": deviations}
    figures["evidence"] = ratios
    message = (
        f"{_said(score, bounds)} over {len(scores)} whole chunks, {abs(deviations):.1f} standard deviations "
        f"{'above' if deviations >= 0 else 'below'} the honest {_number(bounds.honest.mean, bounds):.3g}"
    )
    if bounds.bound is None:
        return result("skipped", "no_bound", message, figures)
    message += f", at most {bounds.bound:g} above allowed"
    if deviations > bounds.bound:
        return result("failed", "pooled_error", message, figures)
    return result("passed", None, message, figures)


def _check(
    choice: int | None,
    bounds: PooledBounds,
    name: str,
    status: Status,
    reason: str | None,
    message: str,
    figures: Mapping[str, JsonValue] = MappingProxyType({}),
) -> Check:
    alarms: dict[str, JsonValue] = {
        copy: {"threshold": of.threshold, "audits": of.audits, "false_alarm": of.false_alarm}
        for copy, of in bounds.copies.items()
    }
    return Check(
        name="pooled",
        status=status,
        choice=choice,
        reason=reason,
        message=message,
        figures={**figures},
        thresholds={"name": name, "provenance": bounds.provenance, "bound": bounds.bound, "alarms": alarms},
    )


def _whole_chunks(proofs: Check, figure: str) -> Iterator[float]:
    chunks = proofs.figures.get("chunks")
    for chunk in chunks if isinstance(chunks, list) else ():
        if isinstance(chunk, dict) and chunk["rows"] == CHUNK_SIZE and isinstance(value := chunk.get(figure), float):
            yield value


def _said(score: float, bounds: PooledBounds) -> str:
    return f"{'the mean error' if bounds.noise is None else 'the error by channel'} is {_number(score, bounds):.3g}"


def _number(score: float, bounds: PooledBounds) -> float:
    return math.exp(score) if bounds.noise is None else score
