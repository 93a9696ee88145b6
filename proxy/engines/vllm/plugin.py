"""vLLM's general plugin: called once in every process of a server, before engines and workers are made.

In a vLLM that neither `toploc serve` nor `toploc_proxy.offline` started it does nothing, so having the package
installed changes nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from toploc.errors import UnsupportedEngine

from ...settings import Settings

RUST_FRONT_END: Final = (
    "the Rust front end runs no Python plugins, so its answers would carry no proofs; unset VLLM_USE_RUST_FRONTEND"
)
"""Why it is refused: by `toploc serve`, and where an engine is started without."""


def register() -> None:
    """Installs the adapters.

    Raises:
        UnsupportedEngine: this vLLM, or a front end that was chosen, cannot carry proofs.
    """
    if Settings.from_environ() is not None:
        _install()


@cache
def _install() -> None:
    """Once a process, which may make several engines."""
    import vllm.envs

    if getattr(vllm.envs, "VLLM_USE_RUST_FRONTEND", False):
        raise UnsupportedEngine(f"toploc: {RUST_FRONT_END}")
    from vllm.platforms import current_platform
    from vllm.triton_utils import HAS_TRITON

    from ..guards import require
    from . import expansion, reliances
    from .runners import changes, v1, v2

    require(*reliances.WORKER, *reliances.CONFIGURATION, *reliances.HEAD)
    changes.install()
    v1.install()
    # Without Triton, as on CPUs, vLLM falls back to the first runner.
    if HAS_TRITON:
        v2.install()
    elif current_platform.is_cpu():
        expansion.mend()
