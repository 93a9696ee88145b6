"""What a verifier says that it takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final, Self

BODY_BYTES: Final = 8 * 2**20
"""The longest body of a verifier that does not say: the server's default."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests at once, items of a request, bytes of its body."""

    requests: int
    items: int
    body_bytes: int

    @classmethod
    def of(cls, description: dict[str, Any]) -> Self:
        """From what `GET /v1/toploc` says. What is missing or no limit is none."""
        limits = description.get("limits")

        def limit(name: str, otherwise: int) -> int:
            value = limits.get(name) if isinstance(limits, dict) else None
            return value if isinstance(value, int) and value > 0 else otherwise

        return cls(
            limit("verify_concurrency", sys.maxsize),
            limit("verify_items", sys.maxsize),
            limit("verify_body_bytes", BODY_BYTES),
        )
