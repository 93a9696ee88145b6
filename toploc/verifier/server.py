"""A verifier that is a server, under the names that users import."""

from __future__ import annotations

from .asynchronous import AsyncVerifier
from .replies import RETRIES, TIMEOUT
from .synchronous import Verifier

__all__ = ["RETRIES", "TIMEOUT", "AsyncVerifier", "Verifier"]
