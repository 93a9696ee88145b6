"""Prometheus metrics. Only API servers load this module."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

PROOF_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10)
"""Seconds; a proof of one chunk takes microseconds, and 3 ms is the goal for a whole answer under load."""

VERIFICATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""Seconds: a prefill takes milliseconds on an idle GPU and seconds behind a queue."""

# Proofs

PROOFS: Final = Counter("toploc:proofs", "Proofs made, one per chunk of 32 tokens.")

ANSWERS: Final = Counter(
    "toploc:answers", "Choices that came to their end: `proven`, or the error's code.", ["outcome"]
)

RECEIPTS: Final = Counter(
    "toploc:receipts", "Receipts: `signed`, of these `not_stored`, and `failed` to sign.", ["outcome"]
)

KEPT: Final = Counter("toploc:proofs_kept", "Answers whose proofs can be fetched: `kept`, or `not_kept`.", ["outcome"])

FETCHED: Final = Counter(
    "toploc:proofs_fetched", "Requests for kept proofs: `found`, `unknown`, `expired` or `unavailable`.", ["outcome"]
)

PROOF_LATENCY: Final = Histogram(
    "toploc:proof_latency_seconds", "How long a choice's last output waits for its proofs.", buckets=PROOF_BUCKETS
)

SLOTS: Final = Gauge("toploc:slots", "Captures that a worker can hold.", ["engine"], multiprocess_mode="mostrecent")

SLOTS_IN_USE: Final = Gauge(
    "toploc:slots_in_use", "Captures that it holds.", ["engine"], multiprocess_mode="mostrecent"
)

# Verifications

VERIFICATIONS: Final = Counter(
    "toploc:verifications", "Answers judged: the report's verdict, or `malformed` or `failed`.", ["verdict"]
)

VERIFICATION_LATENCY: Final = Histogram(
    "toploc:verification_latency_seconds", "From evidence to its report.", buckets=VERIFICATION_BUCKETS
)

RUNNING: Final = Gauge(
    "toploc:verifications_running", "Prefills for verifications in progress.", multiprocess_mode="livesum"
)

REQUESTS: Final = Gauge(
    "toploc:verify_requests", "Requests of the verify route in progress.", multiprocess_mode="livesum"
)
