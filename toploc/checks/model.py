"""Is it the model that this verifier holds?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..foreign import quote
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import JsonValue

    from ..evidence.evidence import Evidence


def check_model(evidence: Evidence, names: Collection[str]) -> Check:
    """Compare names; what they stand for is shown by the other checks.

    1. Request, response and proofs name the same model.
    2. It is one of `names`, those that the verifier's weights are served under; if it was told none, any.

    Reasons: `model_differs`, `model_unknown`.
    """
    claimed = tuple(dict.fromkeys(evidence.models))
    listed: list[JsonValue] = [name[:200] for name in claimed]
    own: list[JsonValue] = [*sorted(names)]
    reason = None
    if len(claimed) > 1:  # 1
        reason = "model_differs"
        message = f"request, response and proofs name different models: {', '.join(map(quote, claimed))}"
    elif not names:  # 2
        message = f"the answer is by {quote(claimed[0])}; this verifier was told no name of its weights"
    elif claimed[0] not in names:
        reason = "model_unknown"
        message = f"the answer is by {quote(claimed[0])}, this verifier holds {', '.join(map(quote, sorted(names)))}"
    else:
        message = f"the verifier holds {quote(claimed[0])}"
    return Check(
        name="model",
        status="failed" if reason else "passed",
        reason=reason,
        message=message,
        figures={"names": listed},
        thresholds={"names": own},
    )
