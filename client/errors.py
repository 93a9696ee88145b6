"""What a client raises about an answer, beside the SDK's own errors.

    UnacceptedResponse          an answer that was not accepted; a ToplocError, as `toploc.errors` shows
    ├── RejectedResponse        a check found a contradiction
    ├── UndecidedResponse       nobody could tell
    └── MissingProofs           there was nothing to check

`Checker` in `checker.py` raises them: MissingProofs before any verifier is asked, the others once all is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toploc.errors import ToplocError
from toploc.foreign import printable

if TYPE_CHECKING:
    from .judgement import Judgement


class UnacceptedResponse(ToplocError):
    """Root of what a client raises about an answer. `response` is the SDK's object."""

    def __init__(self, response: Any, message: str) -> None:
        super().__init__(message)
        self.response = response


class RejectedResponse(UnacceptedResponse):
    """An answer in which a check found a contradiction. `report` is what was found."""

    def __init__(self, response: Any, report: Judgement) -> None:
        super().__init__(response, str(report))
        self.report = report


class UndecidedResponse(UnacceptedResponse):
    """An answer of which no verifier can tell whether it is right. `report` says why; it accuses nobody."""

    def __init__(self, response: Any, report: Judgement) -> None:
        super().__init__(response, str(report))
        self.report = report


class MissingProofs(UnacceptedResponse):
    """An answer without proofs, of a client that requires them. `code` is the server's reason, if it gave one."""

    def __init__(self, response: Any, code: str | None, message: str) -> None:
        super().__init__(response, f"the answer has no proofs: {printable(message)}")
        self.code = code
