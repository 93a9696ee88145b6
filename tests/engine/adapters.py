"""Two LoRA adapters of the bundled model, and what holds answers under each to its own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.adapter import make_adapter, merge
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ADAPTERS = ("first", "second")


def make_adapters(root: Path) -> dict[str, Path]:
    """Their folders, by name."""
    for seed, name in enumerate(ADAPTERS):
        make_adapter(root / name, seed)
    return {name: root / name for name in ADAPTERS}


def merged(adapters: Mapping[str, Path], root: Path) -> dict[str, TransformersPrefill]:
    """The independent engine of the model under each adapter, by the adapter's name."""
    for name, adapter in adapters.items():
        merge(adapter, root / name)
    return {name: TransformersPrefill(root / name) for name in adapters}
