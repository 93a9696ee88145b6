"""What figures are held against: bounds on chunks, on tokens, on whole answers. Start at `bounds.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bounds import Bounds, Thresholds

__all__ = ["Bounds", "Thresholds"]


def __getattr__(name: str) -> object:
    # Late, since `bounds` is heavier than the packages beside it.
    if name in __all__:
        from . import bounds

        return getattr(bounds, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
