"""`toploc serve` up to the start of an engine, with the vLLM that is installed and with the newest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from engine_sources import REPOSITORY
from overlay import overlay
from reliance_table import published_versions

MODEL = REPOSITORY / "models" / "toploc-mini"
NEWEST = published_versions()[-1]


@pytest.mark.parametrize("version", ["installed", pytest.param(NEWEST, marks=pytest.mark.compat)])
def test_serve_comes_as_far_as_vllms_own_look_at_the_options(version: str) -> None:
    """What is asked of vLLM comes before. No engine is started: vLLM refuses these options."""
    environment = {} if version == "installed" else overlay(version)
    command = [sys.executable, "-m", "toploc", "serve", str(MODEL), "--enable-auto-tool-choice"]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert ended.stderr.endswith("Error: --enable-auto-tool-choice requires --tool-call-parser\n"), ended.stderr
