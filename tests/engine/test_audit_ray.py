"""`toploc audit --ray` on a Ray cluster of this machine alone, whose worker is a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from options import SERVE

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "toploc" / "evidence"


def servers() -> list[str]:
    """Command lines of servers that a Ray worker started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "toploc_client.audit.tether" in line or ("toploc serve" in line and "--toploc-role verifier --host" in line):
            found.append(line)
    return found


def environment() -> dict[str, str]:
    found = {**os.environ, "HF_HUB_OFFLINE": "1"}
    found.pop("RAY_ADDRESS", None)
    return found


def within(seconds: int, condition: Callable[[], object]) -> bool:
    for _ in range(10 * seconds):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_workers_on_a_cluster(tmp_path: Path) -> None:
    path, out = tmp_path / "answers.jsonl", tmp_path / "report"
    names = ["greedy", "int4-greedy", "sampled", "completion", "other-system", "no-proofs"] * 5
    lines = [json.dumps(json.loads((RECORDED / f"{name}.json").read_bytes())) for name in names]
    path.write_text("\n".join(lines), "utf-8")
    model = str(ROOT / "models" / "toploc-mini")
    call = ["--ray", model, "--ray-gpus", "0", "--in-flight", "8", "--out", out, "--", *SERVE]
    done = subprocess.run(
        [sys.executable, "-m", "toploc", "audit", path, *call],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    entries = [json.loads(line) for line in (out / "reports.jsonl").read_bytes().splitlines()]
    expected = {"int4-greedy": "rejected", "other-system": "rejected", "no-proofs": "undecided"}
    assert {entry["line"]: entry["report"]["verdict"] for entry in entries} == {
        place: expected.get(name, "accepted") for place, name in enumerate(names, 1)
    }
    assert all(entry["verifier"].startswith("ray:") for entry in entries)
    assert (out / "index.html").exists()
    # Servers are told to stop when their workers are gone.
    assert within(60, lambda: not servers())


def test_ctrl_c_while_workers_start(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(json.loads((RECORDED / "greedy.json").read_bytes())), "utf-8")
    call = [path, "--ray", "/none", "--ray-gpus", "0", "--out", tmp_path / "report"]
    with subprocess.Popen(
        [sys.executable, "-m", "toploc", "audit", *call], env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert within(300, servers)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped with 0 reports" in said
    assert "Traceback" not in said
    assert within(60, lambda: not servers())
