"""What a client raises about an answer, beside the SDK's own errors.

Both are ToplocErrors, the root that `toploc.errors` shows the tree of. `Checker` in `checker.py` raises them:
RejectedResponse once verifiers or a receipt have decided, MissingProofs before any is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toploc.errors import ToplocError
from toploc.report import printable

if TYPE_CHECKING:
    from .judgement import Judgement


class RejectedResponse(ToplocError):
    """An answer that its verifiers do not accept. `response` is the SDK's object, `report` what was found."""

    def __init__(self, response: Any, report: Judgement) -> None:
        super().__init__(str(report))
        self.response = response
        self.report = report


class MissingProofs(ToplocError):
    """An answer without proofs, of a client that requires them. `code` is the server's reason, if it gave one."""

    def __init__(self, response: Any, code: str | None, message: str) -> None:
        super().__init__(f"the answer has no proofs: {printable(message)}")
        self.response = response
        self.code = code
