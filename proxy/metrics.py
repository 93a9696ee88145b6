"""Prometheus metrics, on vLLM's own `/metrics`. Only API servers load this module."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from .log import logger

if TYPE_CHECKING:
    from .channel.client import Channel

# Seconds; a proof of one chunk takes microseconds, and 3 ms is the goal for a whole answer under load.
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10)
POLL_SECONDS = 1.0

PROOFS = Counter("toploc:proofs", "Proofs delivered, one per chunk of 32 tokens.")
ANSWERS = Counter("toploc:answers", "Choices that came to their end: `proven`, or the error's code.", ["outcome"])
RECEIPTS = Counter("toploc:receipts", "Receipts: `signed`, of these `not_stored`, and `failed` to sign.", ["outcome"])
LATENCY = Histogram(
    "toploc:proof_latency_seconds", "How long a choice's last output waits for its proofs.", buckets=LATENCY_BUCKETS
)
SLOTS = Gauge("toploc:slots", "Captures that a worker can hold.", ["engine"], multiprocess_mode="mostrecent")
SLOTS_IN_USE = Gauge("toploc:slots_in_use", "Captures that it holds.", ["engine"], multiprocess_mode="mostrecent")


async def watch_slots(channel: Channel) -> None:
    """Asks the workers for their slots again and again, until cancelled."""
    while True:
        try:
            for engine, slots in enumerate(await channel.slots()):
                SLOTS.labels(engine).set(slots.total)
                SLOTS_IN_USE.labels(engine).set(slots.in_use)
        except TimeoutError:
            logger.warning("toploc: a worker does not say how many slots it holds")
        await asyncio.sleep(POLL_SECONDS)
