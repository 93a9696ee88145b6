"""From the end of a choice to its proofs, or to why it has none: what every engine's wrapped generation does there."""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from toploc.errors import ProofUnavailable
from toploc.protocol import ChoiceProofs, ProofError, WeightSpan

from .. import metrics
from ..log import RequestLogger
from ..tracing import PROOFS, REQUEST_ID, Spans
from .context import to_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from ..channel.messages import Proofs
    from .context import Call

CLIENTS_OWN: Final = frozenset({"aborted", "no_output"})
"""Outcomes that clients bring about, any number of them, and that nobody has to look into."""


async def prove_choice(
    spans: Spans,
    call: Call,
    index: int,
    token_ids: Sequence[int],
    fetched: Awaitable[Proofs],
    *,
    seed: int | None = None,
    asked_early: bool = False,
) -> ChoiceProofs:
    """The proofs of choice `index`, or why there are none: whatever goes wrong here, the text is delivered.

    `fetched`: the worker's reply; it may raise ProofUnavailable. `seed`: with which the choice was drawn, if it can be
    replayed.
    """
    if not spans:
        proven = await _await_proofs(call, index, token_ids, fetched, seed)
    else:
        with spans.span(PROOFS, call.trace_headers) as span:
            span["toploc.asked_early"] = int(asked_early)
            proven = await _await_proofs(call, index, token_ids, fetched, seed)
            span |= {REQUEST_ID: call.request_id, "toploc.choice": index, "toploc.tokens": len(token_ids)}
            span |= {"toploc.proofs": len(proven.proofs or ()), "toploc.outcome": _outcome(proven)}
    metrics.ANSWERS.labels(_outcome(proven)).inc()
    metrics.PROOFS.inc(len(proven.proofs or ()))
    if proven.error is not None and proven.error.code not in CLIENTS_OWN:
        outcome, fields = proven.error.code, {"choice": index, "outcome": proven.error.code}
        RequestLogger(call.request_id).warning("no proofs: %s: %s", outcome, proven.error.message, extra=fields)
    return proven


def _outcome(choice: ChoiceProofs) -> str:
    return "proven" if choice.error is None else choice.error.code


async def _await_proofs(
    call: Call, index: int, token_ids: Sequence[int], fetched: Awaitable[Proofs], seed: int | None
) -> ChoiceProofs:
    try:
        with metrics.PROOF_LATENCY.time():
            found = await fetched
    except ProofUnavailable as error:
        reason = to_error(error)
    except Exception:
        RequestLogger(call.request_id).exception("fetching proofs failed")
        reason = ProofError(code="internal_error", message="fetching the proofs failed")
    else:
        return choice_proofs(index, token_ids, found, seed)
    return ChoiceProofs(index=index, token_ids=tuple(token_ids), error=reason)


def choice_proofs(index: int, token_ids: Sequence[int], found: Proofs, seed: int | None) -> ChoiceProofs:
    """Nothing in it is foreign, and validating every token id would cost the event loop more than all the rest."""
    spans = [WeightSpan(version=version, start=start, end=end) for version, start, end in found.weights]
    return ChoiceProofs.model_construct(
        index=index,
        token_ids=tuple(token_ids),
        proofs=tuple([b2a_base64(proof, newline=False).decode() for proof in found.proofs]),
        seed=seed,
        weights=tuple(spans) or None,
    )


def inputs_of(prompt: Sequence[int], token_ids: Sequence[int]) -> list[int]:
    """What went in where these tokens came out: each is the answer to the one before it."""
    return [*prompt[-1:], *token_ids[:-1]][: len(token_ids)]
