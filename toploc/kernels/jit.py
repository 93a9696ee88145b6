"""The decorators of compiled functions: no GIL, compiled on first use and once per machine (cached on
disk)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")


def kernel(function: F) -> F:
    """Compile; a product and a sum may become one operation, which is exact where both are."""
    return cast("F", njit(nogil=True, cache=True, fastmath={"contract"})(function))


def sum_kernel(function: F) -> F:
    """Compile; also, sums may be taken in any order, as vector units need. For sums that are exact in every
    order."""
    return cast("F", njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})(function))
