"""`toploc doctor` on this installation, and on copies of it that are broken in earnest."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toploc_proxy.doctor.finding import Outcome
from toploc_proxy.doctor.host import check_channel, check_model, check_port, check_shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "toploc-mini"
SITE = Path(sysconfig.get_paths()["purelib"])

# Root may read everything, unless it gives that up.
AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def doctor(*arguments: object, python: Path | str = sys.executable, status: int, **environment: str) -> dict[str, str]:
    """Outcomes by check. Every check that did not pass says what is wrong, and all but errors of ours what to do."""
    command = [*AS_A_USER, str(python), "-m", "toploc", "doctor", "--json", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, **environment}
    )
    assert done.returncode == status, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is (status == 0)
    for finding in report["checks"]:
        assert finding["message"]
        assert "\n" not in finding["message"]
        assert bool(finding["remedy"]) is (finding["outcome"] != "passed"), finding
    return {finding["check"]: finding["outcome"] for finding in report["checks"]}


def installation(folder: Path, *, without: Sequence[str] = (), broken: Sequence[str] = ()) -> Path:
    """The interpreter of an environment with the packages of this one, less some, and with some of vLLM's compiled
    modules cut short as by a full disk."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = Path(sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"])
    for entry in SITE.iterdir():
        ours = "toploc" in entry.name
        if not ours and entry.name not in without and not (entry.name == "vllm" and broken):
            (packages / entry.name).symlink_to(entry)
    for name, source in {"toploc": "toploc", "toploc_proxy": "proxy"}.items():
        (packages / name).symlink_to(ROOT / source)
    if broken:
        (packages / "vllm").mkdir()
        for entry in (SITE / "vllm").iterdir():
            if entry.name.startswith(tuple(broken)):
                (packages / "vllm" / entry.name).touch()
            else:
                (packages / "vllm" / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_this_installation() -> None:
    outcomes = doctor(MODEL, "--host", "127.0.0.1", "--port", 0, status=0)
    assert set(outcomes.values()) == {"passed"}
    assert len(outcomes) == 11


def test_no_entry_points_no_cache_no_port_no_model(tmp_path: Path, taken: int) -> None:
    """A checkout on the path, which can be imported and has no entry points; all failures are told at once."""
    python = installation(tmp_path / "venv")
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    (model / "config.json").chmod(0)
    cache = {"NUMBA_CACHE_DIR": "/proc/none", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    outcomes = doctor(model, "--host", "127.0.0.1", "--port", taken, python=python, status=1, **cache)
    failed = {check for check, outcome in outcomes.items() if outcome == "failed"}
    assert failed == {"plugins", "loading", "kernels", "port", "model"}


@pytest.mark.parametrize(
    ("without", "broken", "failed"),
    [(["torch"], [], "torch"), (["vllm"], [], "vllm"), ([], ["_C"], "vllm")],
    ids=["no torch", "no vllm", "compiled modules"],
)
def test_broken_engine(tmp_path: Path, without: list[str], broken: list[str], failed: str) -> None:
    outcomes = doctor("--port", 0, python=installation(tmp_path, without=without, broken=broken), status=1)
    assert outcomes[failed] == "failed"
    assert "adapters" not in outcomes


def test_front_end_without_plugins() -> None:
    """As an error of `toploc serve`, whose message says what to do."""
    command = [sys.executable, "-m", "toploc", "doctor", "--port", "0"]
    environment = {**os.environ, "VLLM_USE_RUST_FRONTEND": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "failed  adapters: the Rust front end" in done.stdout
    assert "unset VLLM_USE_RUST_FRONTEND" in done.stdout


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("192.0.2.1", 0), ("no host", 0), ("::1%none", 0)])
def test_addresses_that_cannot_be_bound(host: str, port: int) -> None:
    [finding] = check_port(host, port)
    assert finding.outcome is Outcome.FAILED


def test_channel_directory_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: "/proc/none")
    [finding] = check_channel()
    assert finding.outcome is Outcome.FAILED


def test_shared_memory() -> None:
    [finding] = check_shared_memory("/none")
    assert finding.outcome is Outcome.FAILED
    # Nothing is ever free there.
    [finding] = check_shared_memory("/proc")
    assert finding.outcome in (Outcome.WARNING, Outcome.FAILED)


def write(folder: Path, config: Any) -> str:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"x")
    return str(folder)


@pytest.mark.parametrize(
    ("config", "outcome"),
    [
        ({"hidden_size": 127}, Outcome.FAILED),
        ({"hidden_size": 128}, Outcome.PASSED),
        ({"text_config": {"hidden_size": 64}}, Outcome.FAILED),
        ({"text_config": {"hidden_size": 4096}}, Outcome.PASSED),
        ({}, Outcome.WARNING),
        ([], Outcome.WARNING),
        ("{", Outcome.FAILED),
    ],
)
def test_hidden_size(tmp_path: Path, config: Any, outcome: Outcome) -> None:
    [finding] = check_model(write(tmp_path, config))
    assert finding.outcome is outcome


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for name, outcome in {
        str(tmp_path / "none"): Outcome.FAILED,
        "./none": Outcome.FAILED,
        "some/name": Outcome.WARNING,
        str(tmp_path): Outcome.FAILED,
    }.items():
        [finding] = check_model(name)
        assert finding.outcome is outcome
    folder = write(tmp_path, {"hidden_size": 128})
    (tmp_path / "model.safetensors").unlink()
    [finding] = check_model(folder)
    assert finding.outcome is Outcome.FAILED
    assert "no weights" in finding.message


def test_an_engine_that_is_not_installed(tmp_path: Path) -> None:
    """SGLang is in no environment that vLLM is in."""
    command = [sys.executable, "-m", "toploc", "doctor", "--engine", "sglang", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "failed  sglang: SGLang is not installed; pip install sglang" in done.stdout
    assert "adapters" not in done.stdout
