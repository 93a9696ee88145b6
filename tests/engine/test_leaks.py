"""Many requests of every kind, some of them abandoned: every answer is proven, and nothing of them stays behind.

`make soak` makes the long run of it and writes a report.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil
import vllm
from load import Load

if TYPE_CHECKING:
    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.thresholds.bounds import Thresholds
    from toploc.verifier.prefill import TransformersPrefill

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "300"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "inf"))
LEAVING = float(os.environ.get("SOAK_LEAVING", "0.3"))
REPORT = os.environ.get("SOAK_REPORT")
# Of caches with an end: receipts' pages in SQLite (2 MB), and what torch keeps for each shape of a batch.
WARM_UP = 0.5
# Connections that keep alive, and event loops' own descriptors, come and go.
SPARE_DESCRIPTORS = 10
# Of a leak of one object of 1 KB for each request; a capture is 100 KB and more.
MAX_SLOPE = 1.0


class Watch:
    """Memory of a server's processes while a `with` block lasts, in MiB: what is private to each."""

    def __init__(self, server: LocalServer, load: Load) -> None:
        root = psutil.Process(server.pid)
        self.processes = {title(process): process for process in (root, *root.children(recursive=True))}
        self._load = load
        self._samples: list[tuple[int, dict[str, float]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(2):
            sizes = {name: private(process) for name, process in self.processes.items()}
            self._samples.append((self._load.tally.done, sizes))

    def memory(self) -> dict[str, dict[str, float]]:
        """By process, after the warm-up: its size at first and at last, and MiB more per 1,000 requests."""
        last = self._samples[-1][0]
        kept = [(done, sizes) for done, sizes in self._samples if done >= WARM_UP * last]
        requests = np.array([done for done, _ in kept]) / 1000
        figures = {}
        for name in self.processes:
            sizes = np.array([sizes[name] for _, sizes in kept])
            slope = np.polyfit(requests, sizes, 1)[0] if len(kept) > 1 else 0.0
            figures[name] = {"first": sizes[0], "last": sizes[-1], "per 1,000 requests": slope}
        return {name: {key: round(float(value), 3) for key, value in row.items()} for name, row in figures.items()}

    def descriptors(self) -> dict[str, int]:
        return {name: process.num_fds() for name, process in self.processes.items()}


def title(process: psutil.Process) -> str:
    """vLLM's name of it; it names neither the front end nor Python's resource trackers."""
    name = " ".join(process.cmdline()).strip()
    if name.startswith("VLLM::"):
        return name
    return f"resource tracker {process.pid}" if "resource_tracker" in name else "front end"


def private(process: psutil.Process) -> float:
    [line] = [x for x in Path(f"/proc/{process.pid}/status").read_text().splitlines() if x.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def settled(api: Api, name: str) -> float:
    """The gauge's value once it is 0, or after ten seconds: workers are asked once a second."""
    deadline = time.monotonic() + 10
    while (value := api.metric(name)) > 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    return value


def test_nothing_stays_behind(
    server: LocalServer, api: Api, prefill: TransformersPrefill, calibrated: Thresholds
) -> None:
    Load(server.url, prefill, calibrated, LEAVING).run(50)
    assert settled(api, "toploc:slots_in_use") == 0
    load = Load(server.url, prefill, calibrated, LEAVING)
    with Watch(server, load) as watch:
        before, began = watch.descriptors(), time.monotonic()
        assert len(before) >= 3
        load.run(sys.maxsize if REPORT else REQUESTS, seconds=SECONDS)
        seconds = time.monotonic() - began
    left = {name: settled(api, name) for name in ("vllm:num_requests_running", "toploc:slots_in_use")}
    after, memory = watch.descriptors(), watch.memory()
    if REPORT:
        report(Path(REPORT), load, seconds, left, before, after, memory)
    assert load.tally.left > LEAVING * load.tally.done / 2
    assert load.tally.answers > load.tally.done / 2
    assert load.tally.verdicts["accepted"] > 0
    assert load.tally.beyond_calibration <= load.tally.answers / 100
    assert set(left.values()) == {0}
    assert all(after[name] <= before[name] + SPARE_DESCRIPTORS for name in before), (before, after)
    if REPORT:
        assert load.tally.done >= REQUESTS
        assert max(row["per 1,000 requests"] for row in memory.values()) < MAX_SLOPE, memory
    # The server is as it was.
    assert "choices" in api.chat([{"role": "user", "content": "What is 17 + 25?"}])["toploc_proofs"]


def report(path: Path, load: Load, seconds: float, left: Any, before: Any, after: Any, memory: Any) -> None:
    tally = load.tally
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "vllm": vllm.__version__,
        "seconds": round(seconds),
        "requests": dict(sorted(tally.requests.items())),
        "requests in all": tally.done,
        "requests per second": round(tally.done / seconds, 1),
        "abandoned": tally.left,
        "answers verified": tally.answers,
        "proofs verified": tally.proofs,
        "of these beyond the calibrated bounds": tally.beyond_calibration,
        "the server's own verdicts": tally.verdicts,
        "left at the end": left,
        "descriptors": {name: [before[name], after[name]] for name in before},
        "memory, MiB": memory,
    }
    path.write_text(json.dumps(figures, indent=1) + "\n")
