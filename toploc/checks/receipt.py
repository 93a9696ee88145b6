"""Did the provider sign this answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..receipts.receipt import check_receipts
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import JsonValue

    from ..evidence.evidence import Evidence
    from ..receipts.keys import PublicKey


ASKED: Final = frozenset({"prompt", "tokens", "response"})
"""Checks that fail where another request is put in place of the one that was sent."""


def check_receipt(evidence: Evidence, keys: Collection[PublicKey], others: Collection[Check] = ()) -> tuple[Check, ...]:
    """Hold the receipt of every choice against the evidence and the keys that are trusted: the steps and reasons are
    those of `check_receipts`. One check for each choice, and one for the whole where there are no proofs.

    Where one of the `others` failed for which the order of keys in the request counts, and that is not known, the
    receipt is skipped: whoever wrote the evidence may have changed it.
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
        if status == "passed" and result.request == "canonical" and _failed(others, result.choice):
            status, reason = "skipped", "request_unknown"
            message = "the request fits but for the order of its keys, which may be why it fails; see `request_body`"
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


def _failed(others: Collection[Check], choice: int | None) -> bool:
    return any(c.name in ASKED and c.status == "failed" and c.choice in (None, choice) for c in others)
