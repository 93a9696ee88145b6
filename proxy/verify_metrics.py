"""Prometheus metrics of verifications. Only API servers load this module."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Seconds: a prefill takes milliseconds on an idle GPU and seconds behind a queue.
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

VERIFICATIONS = Counter(
    "toploc:verifications", "Answers judged: the report's verdict, or `malformed` or `failed`.", ["verdict"]
)
LATENCY = Histogram("toploc:verification_latency_seconds", "From evidence to its report.", buckets=BUCKETS)
RUNNING = Gauge("toploc:verifications_running", "Prefills for verifications in progress.", multiprocess_mode="livesum")
REQUESTS = Gauge("toploc:verify_requests", "Requests of the verify route in progress.", multiprocess_mode="livesum")
