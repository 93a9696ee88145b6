"""examples/verifier.py as a process, asked by `toploc verify --verifier`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from toploc.verifier.command import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
RECORDED = Path(__file__).parents[1] / "evidence"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "examples/verifier.py", "models/toploc-mini", "--name", "toploc-mini"]
    with subprocess.Popen(
        [*command, "--thresholds", "toploc-mini", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def test_verdicts(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(RECORDED / "greedy.json"), "--verifier", url]) == 0
    assert "passed    tokens of choice 0" in capsys.readouterr().out
    assert main([str(RECORDED / "int4-greedy.json"), "--verifier", url]) == 1
    assert main([str(RECORDED / "no-proofs.json"), "--verifier", url]) == 2
    assert "response.toploc_proofs: missing" in capsys.readouterr().out


def test_what_it_refuses(url: str) -> None:
    assert httpx.post(f"{url}/v1/chat/completions", json={}).status_code == 404
    assert httpx.post(f"{url}/v1/toploc/verify", content=b"{").status_code == 400


def test_its_size() -> None:
    source = (ROOT / "examples" / "verifier.py").read_text("utf-8")
    assert len(source.splitlines()) <= 60
    assert "vllm" not in source
    assert "toploc_proxy" not in source
