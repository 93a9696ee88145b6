"""Did the provider sign this answer?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..receipts.receipt import check_receipts
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import JsonValue

    from ..evidence.evidence import Evidence
    from ..receipts.keys import PublicKey


def check_receipt(evidence: Evidence, keys: Collection[PublicKey]) -> tuple[Check, ...]:
    """Hold the receipt of every choice against the evidence and the keys that are trusted: the steps and reasons are
    those of `check_receipts`. One check for each choice, and one for the whole where there are no proofs.
    """
    trusted: list[JsonValue] = [*sorted(key.key_id for key in keys)]
    checks = []
    for result in check_receipts(*evidence.source, evidence.proofs, keys, evidence.body):
        stated = result.statement
        figures: dict[str, JsonValue] = {}
        if stated is not None:
            figures = {"key_id": stated.key_id, "issued_at": stated.issued_at}
        checks.append(
            Check(
                name="receipt",
                status=result.status,
                choice=result.choice,
                reason=result.reason,
                message=result.message,
                figures=figures,
                thresholds={"key_ids": trusted},
            )
        )
    return tuple(checks)
