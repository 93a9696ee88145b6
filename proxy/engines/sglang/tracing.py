"""Spans of ours through SGLang's own tracing (`--enable-trace`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..guards import load
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...tracing import Attributes


def emit(name: str, start: int, end: int, attributes: Attributes, headers: Mapping[str, str] | None) -> None:
    """Makes a span below what the client's `traceparent` names; times are nanoseconds of the wall clock.

    SGLang's spans of the request lie below it too. Both carry the request's id.
    """
    tracer = load(reliances.TRACING).tracer
    if tracer is None:
        return
    # Where SGLang traces, this is there.
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract(headers or {})
    tracer.start_span(name, context=parent, start_time=start, attributes=attributes).end(end)
