"""`toploc doctor --engine sglang`: its look at torch, SGLang and the compiled kernels."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from ..engines.sglang.reliances import TESTED
from ..engines.sglang.serve.plugins import GROUP, PLUGIN, plugin_allow_list, require_plugin
from ..engines.sglang.serve.refusals import reasons_in_environment
from ..engines.sglang.version import installed_version, require_version
from ..settings import Launch, Settings
from .finding import Finding, Outcome
from .probing import WRITABLE, kernels, probe_apart, tell, torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_engine(python: str = sys.executable) -> Iterator[Finding]:
    """Runs `probe` in a process with the environment that `toploc sglang` makes."""
    plugins = plugin_allow_list(os.environ.get("SGLANG_PLUGINS"))
    yield from probe_apart("SGLang", "sglang", {} if plugins is None else {"SGLANG_PLUGINS": plugins}, python)


def probe() -> None:
    """Prints a line for each finding; in a process of its own."""
    tell(REMEDIES, (torch, _sglang))


def _sglang() -> Finding:
    require_version()
    import sglang.srt.server_args  # noqa: F401

    version = str(installed_version())
    if version.partition("+")[0] not in TESTED:
        return Finding(
            "sglang",
            Outcome.WARNING,
            f"{version} was not tested; those that were are {', '.join(TESTED)}",
            "verify an answer of it before you rely on it",
        )
    return Finding("sglang", Outcome.PASSED, version)


def _adapters() -> Finding:
    from ..engines.guards import require
    from ..engines.sglang.plugin import register
    from ..engines.sglang.reliances import API_SERVER, COMMAND_LINE

    for why in reasons_in_environment():
        problem, _, remedy = why.rpartition("; ")
        return Finding("adapters", Outcome.FAILED, problem, remedy)
    require_plugin()
    Settings(channel="/nowhere", launch=Launch(model="m", name="m", captures=1)).to_environ()
    register()
    require(*COMMAND_LINE, *API_SERVER)
    return Finding("adapters", Outcome.PASSED, "scheduler and HTTP server are as the adapters know them")


def _loading() -> Finding:
    """SGLang logs what fails in loading a plugin, and serves without."""
    from sglang.srt.plugins import load_plugins_by_group

    if PLUGIN not in load_plugins_by_group(GROUP):
        return Finding("loading", Outcome.FAILED, f"SGLang does not load ours in {GROUP}", REMEDIES[_loading])
    return Finding("loading", Outcome.PASSED, "SGLang loads our plugin")


REMEDIES: Final = {
    torch: "install torch, the version that SGLang's wheel asks for",
    _sglang: "install torch and SGLang as a pair",
    _adapters: "install a SGLang that docs/sglang.md lists",
    _loading: "pip install toploc-proxy where SGLang is",
    kernels: WRITABLE,
}
