"""`toploc doctor`'s look at torch, vLLM and the compiled kernels, in a process of its own: a broken pair may end it,
and the adapters' checks wrap vLLM's classes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import orjson

from toploc.errors import ToplocError
from toploc.scheme import TOPK

from ..engines.vllm.reliances import TESTED
from ..engines.vllm.serve.plugins import PLUGIN, plugin_allow_list
from ..settings import Settings
from .finding import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS: Final = 300.0
"""For imports and compilation, on a busy machine with cold disks."""

MARK: Final = "toploc doctor: "


def check_engine(python: str = sys.executable) -> Iterator[Finding]:
    """Runs `probe` in a process with the environment that `toploc serve` makes."""
    environment = {
        **os.environ,
        "VLLM_PLUGINS": plugin_allow_list(os.environ.get("VLLM_PLUGINS")),
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    program = "from toploc_proxy.doctor.engine import probe; probe()"
    try:
        done = subprocess.run(  # noqa: S603
            [python, "-c", program], capture_output=True, text=True, env=environment, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding(
            "engine", Outcome.FAILED, f"importing vLLM took more than {SECONDS:g} s", "look at disk and memory"
        )
        return
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found = orjson.loads(line.removeprefix(MARK))
            yield Finding(found["check"], Outcome(found["outcome"]), found["message"], found["remedy"])
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Finding(
            "engine",
            Outcome.FAILED,
            f"the process that imports vLLM ended with status {done.returncode}: {last[:500]}",
            "install torch and vLLM as a pair again; docs/operations.md has versions",
        )


def probe() -> None:
    """Prints a line for each finding; in a process of its own."""
    for check in (_torch, _vllm, _device, _adapters, _loading, _kernels):
        finding = _attempt(check)
        print(MARK + orjson.dumps(finding).decode(), flush=True)
        if finding.outcome is Outcome.FAILED and check in (_torch, _vllm):
            return


def _attempt(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except ToplocError as error:
        # Says itself what to do.
        return Finding(check.__name__.strip("_"), Outcome.FAILED, str(error).removeprefix("toploc: "))
    except Exception as error:
        problem = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:500]
        return Finding(check.__name__.strip("_"), Outcome.FAILED, problem, REMEDIES[check])


def _torch() -> Finding:
    import torch

    return Finding("torch", Outcome.PASSED, str(torch.__version__))


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


def _kernels() -> Finding:
    """Compiles and runs the encoder, and so finds whether numba may write its cache."""
    import numpy as np

    from toploc.proofs.format import decode_proof, encode_points

    points = np.arange(TOPK)
    decode_proof(encode_points(points, points.astype(np.uint16)))
    return Finding("kernels", Outcome.PASSED, "the encoder compiles, and what it compiled is kept")


REMEDIES: Final = {
    _torch: "install torch, the version that vLLM's wheel asks for",
    _vllm: "install torch and vLLM as a pair",
    _device: "check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES",
    _adapters: "install a vLLM that docs/operations.md lists",
    _loading: "pip install toploc-proxy where vLLM is",
    _kernels: "let NUMBA_CACHE_DIR name a directory that this user can write to",
}
