"""Spans of proofs and verifications, through vLLM's own tracing (`--otlp-traces-endpoint`)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vllm.tracing import extract_trace_context, instrument_manual

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROOFS: Final = "toploc_proofs"
VERIFICATION: Final = "toploc_verification"
REQUEST_ID: Final = "gen_ai.request.id"
"""As on vLLM's span `llm_request` (vllm/tracing/utils.py)."""

Attributes = dict[str, str | int]


class Spans:
    """Makes spans below what the client's `traceparent` names.

    vLLM's span of the request is there too, and not above: vLLM makes it in one go at the request's end, and nobody
    learns its id (vllm/v1/engine/output_processor.py, do_tracing). Both carry the request's id.
    """

    def __init__(self, *, enabled: bool = False) -> None:
        self._enabled = enabled

    @contextmanager
    def span(self, name: str, headers: Mapping[str, str] | None) -> Iterator[Attributes]:
        """Yields the span's attributes, to be filled in before its end."""
        attributes: Attributes = {}
        if not self._enabled:
            yield attributes
            return
        # One reading of the wall clock, which may jump: a span's length is the monotonic clock's.
        start, began = time.time_ns(), time.monotonic_ns()
        try:
            yield attributes
        finally:
            end = start + time.monotonic_ns() - began
            instrument_manual(name, start, end, attributes, extract_trace_context(headers))
