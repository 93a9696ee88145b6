"""Evidence as it is handed to a verifier that is to hold it to its text alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NONE: Final = b',"proofs":"none"'


def without_proofs(evidence: bytes, sampling: Sequence[Mapping[str, float]] | None = None) -> bytes:
    """A JSON object of evidence with `"proofs": "none"`, all other bytes as they were; `sampling`: the options that it
    may have been drawn under. What is no object, or says itself how it is to be held, is left."""
    try:
        known = json.loads(evidence)
    except (ValueError, RecursionError):
        return evidence
    if not isinstance(known, dict) or not known or "proofs" in known:
        return evidence
    more = NONE if sampling is None else NONE + b',"sampling":' + json.dumps([*sampling]).encode()
    end = evidence.rindex(b"}")
    return evidence[:end] + more + evidence[end:]
