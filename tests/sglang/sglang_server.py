"""How the servers of these tests are started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from asking import MODEL
from options import NAME

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "toploc", "sglang"]
SERVE = [
    *["--model-path", str(MODEL), "--served-model-name", NAME, "--device", "cpu"],
    *["--attention-backend", "torch_native", "--sampling-backend", "pytorch"],
    *["--max-total-tokens", "16384", "--max-running-requests", "16"],
    # A scheduler that waits would else take a core.
    "--sleep-on-idle",
]
ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    # Seconds for a tokenizer worker to say that it lives. While it imports on a busy machine it does not, and uvicorn
    # would kill it and start another.
    "SGLANG_UVICORN_WORKER_HEALTHCHECK_TIMEOUT": "120",
    # Stand-ins for what no package has for processors.
    "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE / "standins"), os.environ.get("PYTHONPATH")))),
}
