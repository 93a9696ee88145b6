"""A fixed number of inputs of each fuzz target; `make fuzz` runs them for longer."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = sorted(Path(__file__).parent.glob("fuzz_*.py"))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
def test_fuzz(target, tmp_path):
    # Its limit on memory would count pytest's: a process's peak begins with that of the one that started it.
    options = ["-atheris_runs=20000", "-seed=1", "-max_len=800", "-rss_limit_mb=0", "-malloc_limit_mb=2048"]
    command = [sys.executable, str(target), *options, str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "Done 20000" in result.stderr
