"""`toploc audit --ray` on a Ray cluster of this machine alone, whose worker is a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "toploc" / "evidence"
SERVE = ["--served-model-name", "toploc-mini", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "8"]


def servers() -> list[str]:
    """Command lines of servers that a Ray worker started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "toploc_client.tether" in line or ("toploc serve" in line and "--toploc-role verifier --host" in line):
            found.append(line)
    return found


def test_workers_on_a_cluster(tmp_path: Path) -> None:
    path, out = tmp_path / "answers.jsonl", tmp_path / "report"
    names = ["greedy", "int4-greedy", "sampled", "completion", "other-system", "no-proofs"] * 5
    lines = [json.dumps(json.loads((RECORDED / f"{name}.json").read_bytes())) for name in names]
    path.write_text("\n".join(lines), "utf-8")
    model = str(ROOT / "models" / "toploc-mini")
    call = ["--ray", model, "--ray-gpus", "0", "--in-flight", "8", "--out", out, "--", *SERVE]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "toploc", "audit", path, *call],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    entries = [json.loads(line) for line in (out / "reports.jsonl").read_bytes().splitlines()]
    expected = {"int4-greedy": "rejected", "other-system": "rejected", "no-proofs": "error"}
    assert {entry["line"]: entry["report"]["verdict"] for entry in entries} == {
        place: expected.get(name, "accepted") for place, name in enumerate(names, 1)
    }
    assert all(entry["verifier"].startswith("ray:") for entry in entries)
    assert (out / "index.html").exists()
    # Servers are told to stop when their workers are gone.
    for _ in range(60):
        if not servers():
            break
        time.sleep(1)
    assert servers() == []
