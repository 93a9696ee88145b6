"""`toploc doctor`'s look at torch, vLLM and the compiled kernels."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from ..engines.vllm.reliances import TESTED
from ..engines.vllm.serve.plugins import PLUGIN, plugin_allow_list
from ..settings import Settings
from .finding import Finding, Outcome
from .probing import WRITABLE, kernels, probe_apart, tell, torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_engine(python: str = sys.executable) -> Iterator[Finding]:
    """Runs `probe` in a process with the environment that `toploc serve` makes."""
    environment = {
        "VLLM_PLUGINS": plugin_allow_list(os.environ.get("VLLM_PLUGINS")),
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    yield from probe_apart("vLLM", "engine", environment, python)


def probe() -> None:
    """Prints a line for each finding; in a process of its own."""
    tell(REMEDIES, (torch, _vllm))


def _vllm() -> Finding:
    """The version, and whether its compiled operations load into this torch: vLLM only warns where they do not."""
    import torch
    import vllm
    from vllm.platforms import current_platform

    version = vllm.__version__
    current_platform.import_kernels()
    if not hasattr(torch.ops._C, "rms_norm"):
        return Finding(
            "vllm", Outcome.FAILED, f"{version}: its compiled operations do not load", "install its own torch"
        )
    if version.partition("+")[0] not in TESTED:
        return Finding(
            "vllm",
            Outcome.WARNING,
            f"{version} was not tested; those that were are {', '.join(TESTED)}",
            "verify an answer of it before you rely on it",
        )
    return Finding("vllm", Outcome.PASSED, version)


def _device() -> Finding:
    from vllm.platforms import current_platform

    kind = current_platform.device_type
    if not kind:
        return Finding("device", Outcome.FAILED, "vLLM finds no device to run on", REMEDIES[_device])
    return Finding("device", Outcome.PASSED, f"{kind}, {current_platform.get_device_name()}")


def _adapters() -> Finding:
    from ..engines.guards import require
    from ..engines.vllm.plugin import register
    from ..engines.vllm.reliances import API_SERVER

    Settings(channel="/nowhere").to_environ()
    register()
    require(*API_SERVER)
    return Finding("adapters", Outcome.PASSED, "model runners and API server are as the adapters know them")


def _loading() -> Finding:
    """vLLM logs what fails in loading a plugin, and serves without."""
    from vllm.plugins import load_plugins_by_group

    from ..engines.vllm.serve.plugins import PLUGIN_GROUPS

    # By name: vLLM 0.26 has no constant for the second.
    groups = (PLUGIN_GROUPS[0], "vllm.endpoint_plugins")
    missing = [group for group in groups if PLUGIN not in load_plugins_by_group(group)]
    if missing:
        return Finding(
            "loading", Outcome.FAILED, f"vLLM does not load ours in {', '.join(missing)}", REMEDIES[_loading]
        )
    return Finding("loading", Outcome.PASSED, "vLLM loads both plugins")


REMEDIES: Final = {
    torch: "install torch, the version that vLLM's wheel asks for",
    _vllm: "install torch and vLLM as a pair",
    _device: "check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES",
    _adapters: "install a vLLM that docs/operations.md lists",
    _loading: "pip install toploc-proxy where vLLM is",
    kernels: WRITABLE,
}
