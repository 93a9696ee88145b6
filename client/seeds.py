"""The seed that a request which samples is given, so that its server cannot choose among texts.

A server that picked the seed itself could draw until it likes what comes. With the client's seed there is one text, and
a verifier draws it again (`docs/protocol.md`, `sampler`).
"""

from __future__ import annotations

import json
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from toploc.report import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toploc.protocol import ToplocProofs

    from .options import Seeds
    from .routes import Kind

SEEDS: Final = 2**53
"""Below this: what every JSON parser and every signature of a request keeps exact."""

KINDS: Final = ("chat", "completion")
"""Routes whose requests have a `seed`."""

NONE: Final = "none"
"""In place of a sampler's name."""

PATIENCE: Final = 10.0
"""Seconds for a server's description, which is asked for once."""

COLD: Final = 0.01
"""Temperatures below this are raised to it, or taken for none, by some engines."""


def wanted(kind: Kind | None, request: Mapping[str, Any]) -> bool:
    """Whether a request may sample and has no seed of its own."""
    return kind in KINDS and request.get("seed") is None and not request.get("use_beam_search") and not _greedy(request)


def draw(seeds: Seeds, request: Mapping[str, Any]) -> int:
    """At random; or the first 53 bits of SHA-256 over the public value, a colon and the request without its seed, as
    JSON with sorted names and without blanks."""
    value = seeds() if callable(seeds) else seeds
    if not isinstance(value, str):
        return secrets.randbelow(SEEDS)
    body = json.dumps({n: v for n, v in request.items() if n != "seed"}, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(sha256(f"{value}:{body}".encode()).digest()[:8], "big") >> 11


def held(request: Mapping[str, Any], proofs: ToplocProofs | None) -> bool:
    """Whether the answer to a request says with which seed it was drawn, or was none to be drawn."""
    temperature, seed = request.get("temperature"), request.get("seed")
    if seed is None or not isinstance(temperature, int | float) or temperature < COLD or request.get("top_k") == 1:
        return True  # greedy, or by a default of the server that this client does not know
    return all(choice.seed is not None for choice in (proofs and proofs.choices) or () if choice.proofs)


def withheld(sampler: str) -> Check:
    """Of an answer that `held` is false of, by a server that names this sampler."""
    message = f"the request had a seed and the server says that it samples by {sampler!r}; the answer names no seed"
    return Check(name="tokens", status="undecided", reason="sampler_withheld", message=message)


def sampler_in(description: object) -> str:
    """That a server's description (`GET /v1/toploc`) names. `NONE` if it says that it has none; empty if it does not
    say, or is no description."""
    if not isinstance(description, dict) or "sampler" not in description:
        return ""
    sampler = description["sampler"]
    return sampler if isinstance(sampler, str) and sampler else NONE


def _greedy(request: Mapping[str, Any]) -> bool:
    temperature = request.get("temperature")
    return isinstance(temperature, int | float) and temperature == 0
