"""The original library's `sha256sum`."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256sum(filename: str | Path, chunk_size: int = 65536) -> str:
    """SHA-256 of a file as hexadecimal text, read `chunk_size` bytes at a time. Raises OSError."""
    digest = hashlib.sha256()
    with Path(filename).open("rb", buffering=0) as file:
        while block := file.read(chunk_size):
            digest.update(block)
    return digest.hexdigest()
