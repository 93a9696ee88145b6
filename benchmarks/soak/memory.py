"""How much private memory an engine's worker takes under load, of `toploc serve` or of `vllm serve`.

    python benchmarks/soak/memory.py [--plain] [--seconds 200] [NAME=VALUE of the server's environment …]

Sends the requests of `make soak`, sixteen at once, verifies nothing, and prints a line every ten seconds.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from itertools import count
from pathlib import Path
from random import Random

import httpx
import psutil
from toploc_proxy.local_server import LocalServer

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / "engine"), str(ROOT)]

from load import KINDS, LENGTHS  # noqa: E402
from options import NAME, SERVE  # noqa: E402

AT_ONCE = 16
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]


class Load:
    """Requests by so many threads until `ends`, in seconds of the monotonic clock."""

    def __init__(self, url: str, ends: float) -> None:
        self.done = 0
        self._url, self._ends = url, ends
        self._seeds = count()
        self.threads = [threading.Thread(target=self._run) for _ in range(AT_ONCE)]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            while time.monotonic() < self._ends:
                random = Random(next(self._seeds))
                path, body = random.choice(KINDS)(random, random.choice(LENGTHS))
                http.post(path, json={"model": NAME, **body}).raise_for_status()
                self.done += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("environment", nargs="*")
    args = parser.parse_args()
    environment = dict(entry.split("=", 1) for entry in args.environment)
    plain = [sys.executable, str(ROOT / "benchmarks" / "serving" / "plain.py")] if args.plain else None
    model = str(ROOT / "models" / NAME)
    with LocalServer([model, *SERVE, *TOOLS], command=plain, environment=environment) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        [worker] = [child for child in children if "VLLM::Worker" in " ".join(child.cmdline())]
        load = Load(server.url, time.monotonic() + args.seconds)
        for thread in load.threads:
            thread.start()
        while any(thread.is_alive() for thread in load.threads):
            time.sleep(10)
            memory = worker.memory_full_info().uss / 2**20
            print(f"{load.done:7,} requests  {memory:8.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
