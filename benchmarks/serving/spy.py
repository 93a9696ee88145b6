"""Which share of the time in which a process holds its interpreter is ours, by py-spy."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from processes import Processes

OURS: Final = re.compile(r"\((?:\S*/)?(?:toploc|toploc_proxy|proxy)/\S+\.py")
"""A frame of this project, as py-spy writes it: `function (path/of/file.py:line)`."""

MOST: Final = 6
"""Functions that are named."""


def shares(processes: Processes, seconds: float) -> str:
    """A line for each process; what py-spy needs, where it is missing (`pip install py-spy`, and leave to trace)."""
    spy = shutil.which("py-spy")
    if spy is None:
        return "no py-spy: pip install py-spy"
    asked = [(part, pid) for part in ("API server", "engine", "worker") for pid in processes.pids(part)]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = pool.map(lambda one: _share(spy, one[1], seconds), asked)
    return "\n".join(f"{part} ({pid}): {share}" for (part, pid), share in zip(asked, found, strict=True))


def _share(spy: str, pid: int, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stacks"
        call = [spy, "record", "--gil", "--full-filenames", "--format", "raw", "--rate", "200"]
        call += ["--duration", str(int(seconds)), "--output", str(path), "--pid", str(pid)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            return f"py-spy failed: {done.stderr.strip().splitlines()[-1:]}"
        return summed(path.read_text("utf-8"))


def summed(stacks: str) -> str:
    """Of py-spy's raw format: frames with `;` between them, from the outermost, and a count. What our code calls is not
    ours: our command started the whole server, and our `generate` goes around vLLM's."""
    total, own = 0, Counter[str]()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        innermost = frames.rpartition(";")[2]
        total += int(count)
        if OURS.search(innermost):
            own[innermost.partition(" ")[0]] += int(count)
    if not total:
        return "it never held its interpreter"
    most = "".join(f", {name} {count / total:.2%}" for name, count in own.most_common(MOST))
    return f"{total} samples, in our code {own.total() / total:.2%}{most}"
