"""The distribution as users get it: a wheel, imported far from the repository, and the editable install beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
FOLDERS = {"toploc": "toploc", "toploc_proxy": "proxy", "toploc_client": "client", "toploc_gateway": "gateway"}
IMPORT_ALL = f"import {', '.join(PACKAGES)}; print(toploc.__file__)"
LOADS_NOTHING_HEAVY = """
import sys
import {module}
heavy = {{"torch", "vllm", "numba", "numpy", "transformers"}} & set(sys.modules)
assert not heavy, heavy
"""


def run(*command: object, cwd: Path) -> str:
    # A path of the caller's would stand before what the wheel brings.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPOSITORY, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has this environment's packages, but of ours only what the wheel brings."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    interpreter = environment / "bin" / "python"
    # A .pth file adds a folder without reading that folder's own .pth files, of which one is our editable install.
    [site] = environment.glob("lib/python*/site-packages")
    (site / "base.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--quiet", wheel, cwd=environment)
    return interpreter


def test_every_folder_is_a_package_of_the_wheel() -> None:
    found = {"toploc.configs"}
    for name, folder in FOLDERS.items():
        for init in (REPOSITORY / folder).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(REPOSITORY / folder).parts)))
    assert set(PACKAGES) == found


def test_the_wheel_holds_packages_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "toploc/py.typed",
        "toploc/configs/thresholds/paper-bfloat16.yaml",
        "toploc/configs/thresholds/toploc-mini.yaml",
        "toploc/conformance/vectors/proofs.jsonl",
        "toploc/page/parts.css",
        "toploc/page/live.html",
        "toploc/page/live.js",
        "toploc_client/__init__.py",
        "toploc_client/audit/page/report.html",
        "toploc_client/audit/page/report.css",
        "toploc_client/audit/page/report.js",
        "toploc_client/py.typed",
        "toploc_client/vendors/canaries.yaml",
        "toploc_client/vendors/page.css",
        "toploc_client/vendors/page.html",
        "toploc_client/vendors/tools.yaml",
        "toploc_gateway/page/gateway.html",
        "toploc_gateway/page/gateway.js",
        "toploc_gateway/py.typed",
        "toploc_proxy/page/verifier.html",
        "toploc_proxy/page/verifier.js",
        "toploc_proxy/py.typed",
        "toploc_proxy/engines/vllm/runners/v1.py",
        "toploc_proxy/engines/vllm/runners/v2.py",
    } <= names
    assert not [name for name in names if name.startswith(("proxy/", "client/", "gateway/", "tests/", "models/"))]


def test_the_wheel_imports_outside_the_repository(python: Path, tmp_path: Path) -> None:
    assert str(python.parent.parent) in run(python, "-c", IMPORT_ALL, cwd=tmp_path)
    bounds = "from toploc import Thresholds; print(Thresholds.load('toploc-mini').model)"
    assert run(python, "-c", bounds, cwd=tmp_path) == "toploc-mini\n"
    assert "serve" in run(python.with_name("toploc"), "--help", cwd=tmp_path)


def test_the_wheel_declares_vllms_plugins(python: Path, tmp_path: Path) -> None:
    code = """
from importlib.metadata import entry_points
for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
    print(*(plugin.load().__module__ for plugin in entry_points(group=group, name="toploc")))
# One would switch vLLM 0.26 to another model runner.
assert not entry_points(group="vllm.logits_processors")
"""
    assert run(python, "-W", "ignore", "-c", code, cwd=tmp_path).split() == [
        "toploc_proxy.engines.vllm.plugin",
        "toploc_proxy.engines.vllm.endpoint",
    ]


def test_the_editable_install_imports_anywhere(tmp_path: Path) -> None:
    assert str(REPOSITORY) in run(sys.executable, "-c", IMPORT_ALL, cwd=tmp_path)


@pytest.mark.parametrize(
    "module", ["toploc_client", "toploc", "toploc.protocol", "toploc.cli", "toploc_proxy", "toploc_gateway.app"]
)
def test_light_modules_import_nothing_heavy(module: str, tmp_path: Path) -> None:
    run(sys.executable, "-c", LOADS_NOTHING_HEAVY.format(module=module), cwd=tmp_path)
