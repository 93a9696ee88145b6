"""The servers that answer and verify, on processors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
BOUNDS: Final = "paper-bfloat16"

VLLM: Final = ("--enforce-eager", "--max-model-len", "2048", "--kv-cache-memory-bytes", "512M")
SGLANG: Final = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--max-total-tokens", "16384", "--max-running-requests", "16", "--sleep-on-idle"),
)


def server_of(engine: str, model: Path, name: str, python: str) -> LocalServer:
    """To be used in a `with`.

    Args:
        engine: vLLM or SGLang.
        model: the folder of its weights.
        name: that it is served under.
        python: one that has SGLang.
    """
    common: Sequence[str] = ("--served-model-name", name, "--toploc-thresholds", BOUNDS)
    if engine == "vLLM":
        return LocalServer([str(model), *common, *VLLM])
    standins = os.pathsep.join(filter(None, (str(ROOT / "tests/sglang/standins"), os.environ.get("PYTHONPATH"))))
    return LocalServer(
        ["--model-path", str(model), *common, *SGLANG],
        command=[python, "-m", "toploc", "sglang"],
        environment={"SGLANG_USE_CPU_ENGINE": "1", "PYTHONPATH": standins},
    )
