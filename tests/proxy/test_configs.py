"""Files in `configs/` for operators: every key, path, metric and outcome in them exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml
from toploc_proxy import metrics  # noqa: F401
from toploc_proxy.engines.vllm.serve.options import add_options
from toploc_proxy.engines.vllm.serve.refusals import refuse_unsupported
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
DEPLOY = CONFIGS / "deploy"
# SGLang's is read where SGLang is installed (`tests/sglang/test_start.py`).
SERVE = sorted(path for path in (CONFIGS / "serve").glob("*.yaml") if path.stem != "sglang")


@pytest.fixture(scope="module")
def parser() -> FlexibleArgumentParser:
    """That of `toploc serve`."""
    parser = FlexibleArgumentParser(prog="toploc")
    add_options(ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser")))
    return parser


def uncommented(path: Path) -> str:
    """With its options that are commented out."""
    return re.sub(r"^# ([a-z-]+: \S+)$", r"\1", path.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("path", SERVE, ids=lambda path: path.stem)
@pytest.mark.parametrize("whole", [False, True])
def test_serve_files(path: Path, whole: bool, parser: FlexibleArgumentParser, tmp_path: Path) -> None:
    config = tmp_path / path.name
    config.write_text(uncommented(path) if whole else path.read_text())
    args = parser.parse_args(["serve", "--config", str(config)])
    refuse_unsupported(args)
    for key, value in yaml.safe_load(config.read_text()).items():
        found = getattr(args, key.replace("-", "_"))
        assert value in (found, found[0] if isinstance(found, list) else found), key


def test_there_is_a_file_for_each_way_of_serving() -> None:
    assert [path.stem for path in SERVE] == ["data-parallel", "one-gpu", "tensor-parallel", "verifier"]


def test_an_unknown_key_is_refused(parser: FlexibleArgumentParser, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("model: m\ntoploc-signing-keys: x\n")
    with pytest.raises(SystemExit):
        parser.parse_args(["serve", "--config", str(tmp_path / "x.yaml")])


def test_alerts_name_metrics_and_outcomes_that_exist() -> None:
    exported = {
        sample.name
        for family in prometheus_client.REGISTRY.collect()
        if family.name.startswith("toploc:")
        for sample in (*family.samples, family)
    }
    counters = {f"{family.name}_total" for family in prometheus_client.REGISTRY.collect() if family.type == "counter"}
    codes = set(re.findall(r"`(\w+)`", section("docs/protocol.md", "## Error codes")))
    known = {
        "outcome": {"proven", *codes, "not_stored", "failed"},
        "verdict": {"accepted", "rejected", "undecided", "malformed", "failed"},
    }
    names = set()
    for rule in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        names.add(rule["alert"])
        assert set(re.findall(r"toploc:\w+", rule["expr"])) <= exported | counters
        for label, values in re.findall(r'(\w+)[=!]~?"([^"]*)"', rule["expr"]):
            assert set(values.split("|")) <= known[label], rule["alert"]
    assert len(names) == 6


def section(document: str, heading: str) -> str:
    return (ROOT / document).read_text().split(heading)[1].split("\n## ")[0]


def test_compose_and_dockerfile_name_what_is_there() -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    build = services["prover"]["build"]
    context = DEPLOY / build["context"]
    assert context.resolve() == ROOT
    assert (context / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    for service in services.values():
        [config] = [volume.split(":") for volume in service["volumes"] if "/etc/toploc/" in volume]
        inside = yaml.safe_load((DEPLOY / config[0]).read_text())
        assert service["ports"] == [f"{inside['port']}:{inside['port']}"]
        assert config[1] in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_unit(tmp_path: Path) -> None:
    toploc = Path(sys.executable).with_name("toploc")
    unit = tmp_path / "toploc.service"
    unit.write_text((DEPLOY / "toploc.service").read_text().replace("/opt/toploc/bin/toploc", str(toploc)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
