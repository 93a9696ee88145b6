"""Spans of ours through vLLM's own tracing (`--otlp-traces-endpoint`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.tracing import extract_trace_context, instrument_manual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...tracing import Attributes


def emit(name: str, start: int, end: int, attributes: Attributes, headers: Mapping[str, str] | None) -> None:
    """Makes a span below what the client's `traceparent` names; times are nanoseconds of the wall clock.

    vLLM's span of the request is there too, and not above: vLLM makes it in one go at the request's end, and nobody
    learns its id (vllm/v1/engine/output_processor.py, do_tracing). Both carry the request's id.
    """
    instrument_manual(name, start, end, attributes, extract_trace_context(headers))
