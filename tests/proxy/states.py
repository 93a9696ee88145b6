"""`app.state.toploc` of applications that have no engine."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from toploc_proxy.answers.context import Served
from toploc_proxy.server import Server
from toploc_proxy.stores.proofs import MemoryProofs
from toploc_proxy.tracing import Spans


def server(**parts: Any) -> Server:
    """With what a test is about; the rest is missing."""
    usual: dict[str, Any] = {"served": Served("model", "bfloat16", None), "spans": Spans(), "proofs": MemoryProofs()}
    return Server(**{field.name: None for field in fields(Server)} | usual | parts)
