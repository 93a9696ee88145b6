"""Where a request goes, as routes see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """The path below `--root-path`, whether a proxy has taken that off or not (starlette/_utils.py, get_route_path)."""
    path: str = scope.get("path", "")
    below = path.removeprefix(scope.get("root_path", ""))
    return below if below.startswith("/") else path
