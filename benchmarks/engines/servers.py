"""The servers that answer and verify: on processors, or on one GPU."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).parents[2]
BOUNDS: Final = "paper-bfloat16"

CPU: Final = {
    "vLLM": ("--enforce-eager", "--max-model-len", "2048", "--kv-cache-memory-bytes", "512M"),
    "SGLang": (
        *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
        *("--max-total-tokens", "16384", "--max-running-requests", "16", "--sleep-on-idle"),
    ),
}
# Caches of a size, since all start at once. FlashAttention 3 and FlashInfer need not be there.
GPU: Final = {
    "vLLM": (
        *("--max-model-len", "2048", "--max-num-seqs", "64"),
        *("--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", "6G"),
    ),
    "SGLang": (
        *("--attention-backend", "triton", "--sampling-backend", "pytorch", "--context-length", "2048"),
        *("--cuda-graph-backend-prefill", "disabled", "--cuda-graph-max-bs-decode", "64"),
        *("--mem-fraction-static", "0.8", "--max-total-tokens", "65536", "--max-running-requests", "64"),
    ),
}


@dataclass(frozen=True)
class Machine:
    """What servers run on.

    Attributes:
        flags: of each engine.
        environments: of each engine's servers.
        python: one that has SGLang.
        at_once: requests to one server.
        device: of transformers.
    """

    flags: Mapping[str, Sequence[str]]
    environments: Mapping[str, Mapping[str, str]]
    python: str
    at_once: int
    device: str

    def server(self, engine: str, model: Path, name: str) -> LocalServer:
        """One of vLLM or SGLang, to be used in a `with`.

        Args:
            model: the folder of its weights.
            name: that it is served under.
        """
        flags = ("--served-model-name", name, "--toploc-thresholds", BOUNDS, *self.flags[engine])
        environment = self.environments[engine]
        if engine == "vLLM":
            return LocalServer([str(model), *flags], environment=environment)
        command = [self.python, "-m", "toploc", "sglang"]
        return LocalServer(["--model-path", str(model), *flags], command=command, environment=environment)


def processors(python: str) -> Machine:
    path = os.pathsep.join(filter(None, (str(ROOT / "tests/sglang/standins"), os.environ.get("PYTHONPATH"))))
    environments = {"vLLM": {}, "SGLang": {"SGLANG_USE_CPU_ENGINE": "1", "PYTHONPATH": path}}
    return Machine(CPU, environments, python, 16, "cpu")


def gpu(path: str) -> Machine:
    """Args: path: SGLang's PYTHONPATH, for the Python that runs here."""
    # Copies of a model compile the same at the same time.
    environments = {"vLLM": {"VLLM_DISABLE_COMPILE_CACHE": "1"}, "SGLang": {"PYTHONPATH": path}}
    return Machine(GPU, environments, sys.executable, 48, "cuda")
