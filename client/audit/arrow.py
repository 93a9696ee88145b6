"""Parquet, of which the package is no requirement of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path


def arrow(path: Path, instead: str = "") -> tuple[Any, Any]:
    """`pyarrow` and its `parquet`, for a file. Raises ToplocError where they are missing; `instead` is what else can be
    done."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        message = "Parquet needs the package pyarrow; pip install 'toploc-proxy[experiments]'"
        raise ToplocError(f"{path}: {message}{instead and f', or {instead}'}") from None
    return pa, parquet
