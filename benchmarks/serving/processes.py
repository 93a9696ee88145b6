"""What a server's processes have used of processors, the engine's main thread apart."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import psutil

TITLES: Final = {"VLLM::APIServer": "API server", "VLLM::EngineCore": "engine", "VLLM::Worker": "worker"}
"""What vLLM calls its processes (vllm/utils/system_utils.py, `set_process_title`). One front end has no title. Without
tensor parallelism on a GPU the worker is a part of the engine's process."""


class Processes:
    """Those of the server whose first process is `pid`."""

    def __init__(self, pid: int) -> None:
        first = psutil.Process(pid)
        self._parts = [(psutil.Process(pid), "API server")]
        for child in first.children(recursive=True):
            command = " ".join(child.cmdline())
            part = next((name for title, name in TITLES.items() if command.startswith(title)), None)
            if part is not None:
                self._parts.append((child, part))

    def seconds(self) -> dict[str, float]:
        """Processor time since the start, in seconds, by part and thread: the main one, and the others together."""
        used: defaultdict[str, float] = defaultdict(float)
        for process, part in self._parts:
            for thread in process.threads():
                name = part if part == "API server" else f"{part}, {'main' if thread.id == process.pid else 'others'}"
                used[name] += thread.user_time + thread.system_time
        return dict(used)

    def pids(self, part: str) -> list[int]:
        """Of all processes of a part."""
        return [process.pid for process, name in self._parts if name == part]
