"""`make demo`, as a person runs it: to its end, and ended before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def start(marker: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO)],
        env={**os.environ, "TOPLOC_TEST": marker, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_with(marker: str) -> list[int]:
    """Processes that inherited the marker in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TOPLOC_TEST={marker}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def assert_all_gone(marker: str) -> None:
    # The last of them may be on its way out.
    for _ in range(100):
        if not processes_with(marker):
            return
        time.sleep(0.1)
    assert processes_with(marker) == []


def test_it_accepts_the_honest_answer_and_rejects_the_copys() -> None:
    with start("whole") as demo:
        output, _ = demo.communicate(timeout=550)
    assert demo.returncode == 0, output
    assert output.count("verdict   ACCEPTED") == 1
    assert output.count("verdict   REJECTED") == 1
    assert output.index("ACCEPTED") < output.index("REJECTED")
    assert "proofs    5 for 151 tokens, 1290 bytes" in output
    assert_all_gone("whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_nothing_behind_when_it_is_ended(number: int) -> None:
    marker = f"signal-{number}"
    with start(marker) as demo:
        assert demo.stdout is not None
        for line in iter(lambda: demo.stdout.read(1), ""):
            # A dot: the server is coming up.
            if line == ".":
                break
        assert len(processes_with(marker)) > 1
        demo.send_signal(number)
        demo.communicate(timeout=60)
    assert demo.returncode == 128 + number
    assert_all_gone(marker)
