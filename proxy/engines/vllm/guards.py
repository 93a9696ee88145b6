"""What an adapter asserts of the vLLM it finds, so that a changed vLLM is refused and never proven wrongly."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import vllm

from toploc.errors import UnsupportedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def require_parameters(function: Callable[..., Any], *names: str) -> None:
    """The function takes these parameters, in this order, before any other."""
    found = tuple(inspect.signature(function).parameters)
    if found[: len(names)] != names:
        raise _unsupported(f"{function.__qualname__} takes {found}, not {names}")


def require_members(owner: object, names: Iterable[str], where: str) -> None:
    """The object, class or named tuple has these attributes, or the dictionary these keys."""
    missing = [name for name in names if not (name in owner if isinstance(owner, dict) else hasattr(owner, name))]
    if missing:
        raise _unsupported(f"{where} has no {', '.join(missing)}")


def _unsupported(what: str) -> UnsupportedEngine:
    return UnsupportedEngine(
        f"toploc: vLLM {vllm.__version__} is not one this version knows: {what}. Install a vLLM that "
        "docs/operations.md lists, or serve without proofs"
    )
