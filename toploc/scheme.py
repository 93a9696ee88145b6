"""The constants of the scheme, which prover and verifier share."""

from __future__ import annotations

from typing import Final

SCHEME: Final = "toploc-gf65497"
"""The name of the whole in `toploc_proofs` and in `GET /v1/toploc`."""

VERSION: Final = 1
"""Of `toploc_proofs`, raised when its form changes (docs/protocol.md)."""

CHUNK_SIZE: Final = 32
"""Rows of a chunk, one per output token (arXiv 2501.16007, section 4)."""

TOPK: Final = 128
"""Elements of a chunk that a proof stands for (arXiv 2501.16007, section 4)."""

MAX_ITEMS: Final = 1000
"""Of one request to `POST /v1/toploc/verify`. Stops a body that asks for prefills without end."""
