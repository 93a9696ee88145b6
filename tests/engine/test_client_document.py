"""The examples of docs/client.md, run one after another as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toploc_proxy.local_server import LocalServer

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    toploc (.*)$", TEXT, re.MULTILINE)


def test_examples(server: LocalServer, tmp_path: Path) -> None:
    script = "\n".join(EXAMPLES)
    assert script.count("http://localhost:8000") == 2
    here = script.replace("http://localhost:8000", server.url)
    done = subprocess.run(
        [sys.executable, "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "REJECTED" in done.stdout
    assert [command.split()[0] for command in COMMANDS] == ["verify", "audit"]
    for command in COMMANDS:
        call = [sys.executable, "-m", "toploc", *command.replace("http://localhost:8000", server.url).split()]
        ran = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "report" / "index.html").exists()
