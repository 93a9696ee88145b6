"""Another version of vLLM to run on a CPU: its Python files over the compiled part of the version that is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import vllm
from engine_sources import CACHE, fetch


def overlay(version: str) -> dict[str, str]:
    """Variables with which `import vllm` gets this version."""
    folder = CACHE / f"overlay-{version}-on-{vllm.__version__}"
    if not folder.is_dir():
        # Beside the target, so that it is moved there whole or not at all.
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            _make(Path(temporary) / "overlay", version)
            (Path(temporary) / "overlay").rename(folder)
    return {"PYTHONPATH": str(folder)}


def _make(folder: Path, version: str) -> None:
    shutil.copytree(fetch(version), folder, copy_function=os.link)
    installed = Path(vllm.__file__).parent
    for file in installed.rglob("*"):
        target = folder / "vllm" / file.relative_to(installed)
        if file.is_file() and file.suffix not in (".py", ".pyc") and target.parent.is_dir():
            target.symlink_to(file)
    # vLLM finds its platform in the version of its package (vllm/platforms/__init__.py).
    metadata = folder / f"vllm-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
