"""A server ends with the process that it was started for, even if that and its children are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("killed", [False, True])
def test_it_ends_with_whoever_holds_its_input(tmp_path: Path, killed: bool) -> None:
    said = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-m", "toploc_client.audit.tether", sys.executable, "-c", COMMAND, str(said)],
        stdin=subprocess.PIPE,
    ) as tether:
        while not said.exists() or not said.read_text().endswith("\n"):
            time.sleep(0.01)
        pid = int(said.read_text())
        assert alive(pid)
        if killed:
            os.kill(tether.pid, signal.SIGKILL)
        assert tether.stdin is not None
        tether.stdin.close()
        for _ in range(150):
            if not alive(pid):
                break
            time.sleep(0.1)
        assert not alive(pid)


def test_it_ends_as_its_command_does() -> None:
    call = [sys.executable, "-m", "toploc_client.audit.tether", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(call, stdin=subprocess.PIPE) as tether:
        assert tether.wait(30) == 7
