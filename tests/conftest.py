"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell starts what runs in the background with SIGINT ignored, which everything that a test starts would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
