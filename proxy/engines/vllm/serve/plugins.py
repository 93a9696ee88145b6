"""Which plugins vLLM loads, in every process that it starts."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from toploc.errors import UnsupportedEngine

from ....settings import ENVIRONMENT_VARIABLE

PLUGIN: Final = "toploc"

RAY_COPIES: Final = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
"""Names of variables that Ray hands to workers besides vLLM's own (vllm/ray/ray_env.py)."""

PLUGIN_GROUPS: Final = (
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)
"""Groups that vLLM loads whole unless VLLM_PLUGINS is set (vllm/plugins/__init__.py)."""


def require_plugins() -> None:
    """Raises UnsupportedEngine if vLLM would not find our plugins, and so serve without proofs: a checkout on the path
    can be imported, but has no entry points."""
    for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
        if PLUGIN not in [point.name for point in entry_points(group=group)]:
            raise UnsupportedEngine(
                f"toploc: the package's entry point in {group} is not installed, so vLLM would serve without proofs; "
                "pip install toploc-proxy, or a checkout with pip install --editable"
            )


def plugin_allow_list(given: str | None) -> str:
    """The value of VLLM_PLUGINS that adds ours to what vLLM would load without it.

    Setting the variable turns off every plugin that it does not name; endpoint plugins, the other way round, load
    only if it names them.
    """
    names = (
        given.split(",")
        if given is not None
        else [p.name for group in PLUGIN_GROUPS for p in entry_points(group=group)]
    )
    return ",".join(dict.fromkeys([*names, PLUGIN]))


def ray_copies(given: str | None) -> str:
    """The value of VLLM_RAY_EXTRA_ENV_VARS_TO_COPY that has Ray's workers told of our settings too."""
    return ",".join(filter(None, (given, ENVIRONMENT_VARIABLE)))
