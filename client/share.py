"""The lottery by which answers are chosen where only a share of them is checked."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

NUMBERS: Final = 2**64
"""Lots are below this."""


def lot(seed: str, name: str) -> int:
    """The first 64 bits of SHA-256 over seed, colon and name."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8], "big")


def chosen(share: float, seed: str, name: str) -> bool:
    """Whether the answer of this name is in a share from 0 to 1: its lot, as a share of 2^64, is below it.

    Whoever does not know the seed cannot choose names that are passed over.
    """
    return lot(seed, name) < share * NUMBERS
