"""Spans of proofs and verifications; each engine's `tracing.py` hands them to its own tracing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PROOFS: Final = "toploc_proofs"
"""The span of a choice's proofs."""

VERIFICATION: Final = "toploc_verification"
"""The span of a verification."""

REQUEST_ID: Final = "gen_ai.request.id"
"""As on vLLM's span `llm_request` (vllm/tracing/utils.py)."""

Attributes = dict[str, str | int]

Emit = Callable[[str, int, int, Attributes, Mapping[str, str] | None], None]
"""Name, start and end in nanoseconds of the wall clock, attributes, and the headers of the client's request."""


class Spans:
    """Times what happens, and hands it to `emit`; does nothing without."""

    def __init__(self, emit: Emit | None = None) -> None:
        self._emit = emit

    def __bool__(self) -> bool:
        """Whether anybody hears of them."""
        return self._emit is not None

    @contextmanager
    def span(self, name: str, headers: Mapping[str, str] | None) -> Iterator[Attributes]:
        """Yields the span's attributes, to be filled in before its end."""
        attributes: Attributes = {}
        if self._emit is None:
            yield attributes
            return
        # One reading of the wall clock, which may jump: a span's length is the monotonic clock's.
        start, began = time.time_ns(), time.monotonic_ns()
        try:
            yield attributes
        finally:
            self._emit(name, start, start + time.monotonic_ns() - began, attributes, headers)
