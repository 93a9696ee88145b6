"""Which SGLang is installed, found without importing it, which takes seconds."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from toploc.errors import UnsupportedEngine

from .reliances import NEWEST, OLDEST


def installed_version() -> str | None:
    """The version, None where SGLang is not installed."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return None


def require_version() -> None:
    """Raises UnsupportedEngine where it is missing, or not one whose sources were looked at: what the list of reliances
    does not say of another may have changed too."""
    found = installed_version()
    if found is None:
        raise UnsupportedEngine("toploc: SGLang is not installed; pip install sglang, as docs/sglang.md says")
    if not _release(OLDEST) <= _release(found) <= _release(NEWEST):
        raise UnsupportedEngine(
            f"toploc: SGLang {found[:40]} is not one this version knows; install one from {OLDEST} to {NEWEST}"
        )


def _release(text: str) -> tuple[int, ...]:
    """Its numbers, without what comes after them."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
