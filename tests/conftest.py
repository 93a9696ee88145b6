"""What holds for all tests."""

from __future__ import annotations

import os
import signal


def pytest_configure() -> None:
    # Else vLLM binds each server's engine to the same core, and each takes threads for all.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell starts what runs in the background with SIGINT ignored, which everything that a test starts would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
