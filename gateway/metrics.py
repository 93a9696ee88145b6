"""Prometheus metrics of one gateway. Labels are names of the configuration: nobody outside of it makes new ones."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds: from a cached token to a long answer, or a prefill behind a queue."""

OTHER: Final = "other"
"""In place of a model that no upstream names."""


class Metrics:
    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        by = ["upstream", "model"]
        self.requests = Counter("toploc:gateway_requests", "Replies to applications.", [*by, "status"], registry=own)
        self.answers = Counter("toploc:gateway_answers", "Answers of upstreams.", [*by, "verdict"], registry=own)
        self.passed_over = Counter(
            "toploc:gateway_passed_over", "Attempts without a reply.", ["upstream", "reason"], registry=own
        )
        self.seconds = Histogram(
            "toploc:gateway_reply_seconds", "From a request to its reply's head.", by, buckets=BUCKETS, registry=own
        )
        self.audit_seconds = Histogram(
            "toploc:gateway_audit_seconds", "For what verifiers say of an answer.", by, buckets=BUCKETS, registry=own
        )
        self.quarantined = Gauge("toploc:gateway_quarantined", "Upstreams in quarantine.", ["upstream"], registry=own)
        self.running = Gauge("toploc:gateway_requests_running", "Requests in progress.", registry=own)
        self.pending = Gauge("toploc:gateway_answers_pending", "Answers that are to be checked.", registry=own)
        self.store_errors = Counter("toploc:gateway_store_errors", "Calls of the store that failed.", registry=own)

    def text(self) -> bytes:
        return generate_latest(self.registry)
