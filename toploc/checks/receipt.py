"""Did the provider sign this answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..receipts.receipt import check_receipts
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic import JsonValue

    from ..evidence.evidence import Evidence
    from ..receipts.keys import PublicKey
    from ..receipts.receipt import Known, ReceiptResult


PROVEN: Final = frozenset({"proofs", "pooled"})
"""Checks on what prompt and tokens alone decide."""

UNSURE: Final[Mapping[Known, str]] = {
    "canonical": "the request fits but for the order of its keys",
    "prompt": "of the request only the prompt's tokens are known to be those that were signed",
}

ASKED: Final = frozenset({"prompt", "tokens", "response"})
"""Checks that fail where another request is put in place of the one that was sent."""


def check_receipt(evidence: Evidence, keys: Collection[PublicKey], others: Collection[Check] = ()) -> tuple[Check, ...]:
    """Hold the receipt of every choice against the evidence and the keys that are trusted: the steps and reasons are
    those of `check_receipts`. One check for each choice, and one for the whole where there are no proofs.

    Where one of the `others` failed, and may have done so for what is not known of the request, the receipt is skipped:
    whoever wrote the evidence may have changed it.
    """
    trusted: list[JsonValue] = [*sorted(key.key_id for key in keys)]
    checks = []
    results = check_receipts(*evidence.source, evidence.proofs, keys, evidence.body, partial=evidence.partial)
    for result in results:
        stated = result.statement
        figures: dict[str, JsonValue] = {}
        if stated is not None:
            figures = {"key_id": stated.key_id, "issued_at": stated.issued_at}
        if result.uncovered:
            figures["uncovered"] = [*result.uncovered]
        status, reason, message = result.status, result.reason, result.message
        if status == "passed" and _may_be_the_requests(result, others):
            status, reason = "skipped", "request_unknown"
            message = f"{UNSURE[result.request]}, which may be why it fails; see `request_body`"
        checks.append(
            Check(
                name="receipt",
                status=status,
                choice=result.choice,
                reason=reason,
                message=message,
                figures=figures,
                thresholds={"key_ids": trusted},
            )
        )
    return tuple(checks)


def _may_be_the_requests(result: ReceiptResult, others: Collection[Check]) -> bool:
    """Whether a check failed that fails, too, where another request stands in place of the one that was sent. Of text
    the prompt's tokens decide what states are computed; of media, options of the request do as well."""
    failed = {c.name for c in others if c.status == "failed" and c.choice in (None, result.choice)}
    if result.request == "prompt" and result.statement is not None:
        return bool(failed - PROVEN) or (bool(failed) and result.statement.media_sha256 is not None)
    return result.request == "canonical" and bool(failed & ASKED)
