"""The gateway's YAML: what is wrong is named, with what it has to be."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from recorded import ROOT
from toploc_gateway.config import read_config
from toploc_gateway.errors import InvalidConfig

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = ROOT / "configs" / "gateway.yaml"
KEYS = {f"{name}_KEY": f"the key of {name}" for name in ("GATEWAY", "PROVIDER", "AUDITOR", "ANOTHER", "ORDINARY")}
UPSTREAM = {"name": "a", "url": "http://x/v1", "models": ["m"], "verifiers": [{"url": "http://y"}]}


def config(folder: Path, given: Any, **environment: str) -> Any:
    path = folder / "c.yaml"
    path.write_text(given if isinstance(given, str) else yaml.safe_dump(given))
    return read_config(path, environment)


def test_the_example() -> None:
    found = read_config(EXAMPLE, KEYS)
    prover, quick, plain = found.upstreams
    assert prover.api_key is not None
    assert prover.api_key.get_secret_value() == "the key of PROVIDER"
    assert (prover.policy.when, prover.policy.action("rejected"), prover.policy.action("missing")) == (
        "inline",
        "next",
        "next",
    )
    assert (quick.policy.when, quick.policy.audit_rate, quick.policy.action("rejected")) == ("background", 0.1, "warn")
    assert quick.policy.quarantine == prover.policy.quarantine
    assert (plain.proofs, plain.serves("anything")) == ("none", True)
    assert "the key of" not in repr(found), repr(found)


def test_the_example_is_checked_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "toploc", "gateway", str(EXAMPLE), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{EXAMPLE}: 3 upstreams\n"), done.stderr


def test_policies_are_inherited_part_by_part(tmp_path: Path) -> None:
    policy = {"audit_rate": 0.5, "on_missing": "warn", "quarantine": {"seconds": 5, "probation": 3}}
    upstreams = [UPSTREAM, {**UPSTREAM, "name": "b", "policy": {"audit_rate": 0.2, "quarantine": {"seconds": "never"}}}]
    first, second = config(tmp_path, {"policy": policy, "upstreams": upstreams}).upstreams
    assert (first.policy.audit_rate, first.policy.quarantine.seconds) == (0.5, 5)
    assert (second.policy.audit_rate, second.policy.action("missing")) == (0.2, "warn")
    assert (second.policy.quarantine.seconds, second.policy.quarantine.probation) == ("never", 3)


WRONG: dict[str, tuple[Any, str]] = {
    "no YAML": ("a: [", "cannot be read"),
    "no mapping": ("- 1", "expected names and values"),
    "no upstreams": ({}, "upstreams: is missing; give it"),
    "an unknown option": ({"upstreams": [UPSTREAM], "portt": 1}, "portt: no such option"),
    "an unknown option of an upstream": ({"upstreams": [{**UPSTREAM, "key": 1}]}, "upstreams[0].key: no such option"),
    "no URL": ({"upstreams": [{**UPSTREAM, "url": "x/v1"}]}, "upstreams[0].url: expected http://"),
    "a user in a URL": ({"upstreams": [{**UPSTREAM, "url": "http://u:p@x"}]}, "upstreams[0].url: expected http://"),
    "a header in a name": ({"upstreams": [{**UPSTREAM, "name": "a\r\nb: c"}]}, "upstreams[0].name: "),
    "one name for two": ({"upstreams": [UPSTREAM, UPSTREAM]}, "upstreams: two are called 'a'"),
    "nobody checks": ({"upstreams": [{**UPSTREAM, "verifiers": []}]}, "upstreams[0]: verifiers: nobody checks"),
    "failing in the background": (
        {"upstreams": [{**UPSTREAM, "policy": {"when": "background", "on_rejected": "fail"}}]},
        "upstreams[0].policy: on_rejected: in the background the answer was delivered already; give warn",
    ),
    "a rate": ({"upstreams": [UPSTREAM], "policy": {"audit_rate": 2}}, "policy.audit_rate: "),
    "an action": ({"upstreams": [UPSTREAM], "policy": {"on_missing": "ignore"}}, "policy.on_missing: "),
    "a store": ({"upstreams": [UPSTREAM], "store": {"url": "mysql://x"}}, "store.url: expected sqlite:FILE"),
    "open to all": ({"upstreams": [UPSTREAM], "host": "0.0.0.0"}, "api_keys: whoever reaches 0.0.0.0 may ask"),
    "an empty key": ({"upstreams": [UPSTREAM], "api_keys": [""]}, "api_keys: a key is empty"),
    "no variable": (
        {"upstreams": [{**UPSTREAM, "api_key": "${NONE_SUCH}"}]},
        "upstreams[0].api_key: the environment has no NONE_SUCH; set it",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, name: str) -> None:
    given, message = WRONG[name]
    with pytest.raises(InvalidConfig) as error:
        config(tmp_path, given)
    assert str(error.value).startswith(f"{tmp_path / 'c.yaml'}: "), error.value
    assert message in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_keys_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    """At start, not with the first answer."""
    from toploc_gateway.app import application

    from toploc.errors import InvalidKey

    given = {**UPSTREAM, "trusted_keys": str(tmp_path / "none.json")}
    with pytest.raises(InvalidKey):
        application(config(tmp_path, {"upstreams": [given], "store": {"url": f"sqlite:{tmp_path / 'g.db'}"}}))
