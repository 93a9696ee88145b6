"""requirements/cpu.txt is the whole environment, pinned: nothing is chosen by the day on which it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

FILE = Path(__file__).parents[2] / "requirements" / "cpu.txt"
# The engine's own requirements that a CPU has no use for: builds for CUDA, and modules that nothing here imports.
NOT_INSTALLED = {"triton", "torchaudio", "torchcodec", "torchvision"}
BROUGHT_BY_VENV = {"pip", "toploc-proxy"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: Path = FILE) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in file.read_text().splitlines():
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)", line)
        assert match, f"no pin: {line}"
        assert normalized(match[1]) not in found, f"twice: {line}"
        found[normalized(match[1])] = match[2]
    return found


def test_every_package_is_installed_as_it_is_pinned() -> None:
    # Not those that setuptools brings along, and puts on the path when it is imported.
    own = distributions(path=[sysconfig.get_path("purelib")])
    installed = {normalized(found.name): found.version.partition("+")[0] for found in own}
    assert {name: version for name, version in installed.items() if name not in BROUGHT_BY_VENV} == pins()


def test_no_requirement_of_a_package_is_missing_or_contradicted() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if not line.startswith("WARNING")]
    missing = [re.fullmatch(r"\S+ \S+ requires (\S+), which is not installed\.", line) for line in said]
    assert all(missing), said
    assert {match[1] for match in missing if match} == NOT_INSTALLED


def test_sglangs_environment_adds_to_this_one() -> None:
    """It sees all of this one's packages, and has none of them in another version."""
    added = pins(FILE.with_name("sglang-cpu.txt"))
    assert "sglang" in added
    assert not added.keys() & pins().keys()
