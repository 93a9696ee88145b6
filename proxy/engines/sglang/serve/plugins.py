"""Which plugins SGLang loads, in every process that it starts."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from toploc.errors import UnsupportedEngine

PLUGIN: Final = "toploc"
GROUP: Final = "sglang.srt.plugins"


def require_plugin() -> None:
    """Raises UnsupportedEngine if SGLang would not find our plugin: a checkout on the path can be imported, but has no
    entry points."""
    if PLUGIN not in [point.name for point in entry_points(group=GROUP)]:
        raise UnsupportedEngine(
            f"toploc: the package's entry point in {GROUP} is not installed, so SGLang would serve without proofs; "
            "pip install toploc-proxy, or a checkout with pip install --editable"
        )


def plugin_allow_list(given: str | None) -> str | None:
    """The value of SGLANG_PLUGINS that loads ours too. Where it is not set, or empty, all are loaded, and it is left
    alone."""
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    return ",".join(dict.fromkeys([*names, PLUGIN])) if names else None
