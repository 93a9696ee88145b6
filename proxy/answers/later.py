"""Answers of /v1/responses that the server keeps, so that their responses can be fetched by id, once and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from toploc.protocol import ProofError
from toploc.recent import Recent

if TYPE_CHECKING:
    from ..receipts.signing import Signature
    from .context import RequestContext

LIMIT: Final = 1_000
"""Answers whose proofs are kept for their responses. vLLM itself keeps all responses for ever."""

REMEMBERED: Final = 100_000
"""Ids of those before."""

EXPIRED: Final = ProofError(
    code="expired", message=f"the server keeps the proofs of its last {LIMIT:,} stored responses, and this is older"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was proven of a response, now or once it is made, and what signs it."""

    context: RequestContext
    signature: Signature | None


class Later:
    """In this process alone, as vLLM's own store of responses."""

    def __init__(self, limit: int = LIMIT, remembered: int = REMEMBERED) -> None:
        self._recent = Recent[Answer](count=limit, remembered=remembered)
        self.forget = self._recent.forget
        """Another response has this id now, which is not to be proven."""

    def keep(self, response_id: str, answer: Answer) -> None:
        """Clients may choose ids: of equal ones the last response is there, as vLLM has it."""
        self._recent.put(response_id, answer)

    def get(self, response_id: str) -> Answer | ProofError | None:
        """None of a response that nothing was to be proven of."""
        return self._recent.get(response_id) or (EXPIRED if self._recent.has_gone(response_id) else None)
