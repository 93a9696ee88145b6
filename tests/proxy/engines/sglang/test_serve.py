"""`toploc sglang` before SGLang is imported: what is refused, what settings come of the options, which plugins load."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

import pytest
from toploc_proxy.engines.sglang import plugin, version
from toploc_proxy.engines.sglang.serve.options import CAPTURES, add_options, settings_from
from toploc_proxy.engines.sglang.serve.plugins import plugin_allow_list
from toploc_proxy.engines.sglang.serve.refusals import OPTIONS, SIZES, VARIABLES, refuse_unsupported
from toploc_proxy.settings import Settings

from toploc.errors import InvalidThresholds, UnsupportedEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

THEIRS: Mapping[str, Any] = {
    "model_path": "/models/m",
    "served_model_name": None,
    "dp_size": 1,
    "max_running_requests": None,
    "revision": None,
    "load_format": "auto",
    "download_dir": None,
    "skip_tokenizer_init": False,
}
"""As SGLang's own parser has them where nothing is given."""


def parse(*arguments: str, **theirs: Any) -> Namespace:
    parser = ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments, Namespace(**{**THEIRS, **theirs}))


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_what_can_be_proven_is_not_refused() -> None:
    refuse_unsupported(
        parse(
            speculative_algorithm=None,
            disaggregation_mode="null",
            nnodes=1,
            attn_cp_size=1,
            elastic_ep_backend="none",
            grpc_port=None,
            enable_torch_compile=False,
            cuda_graph_backend_decode="full",
            tp_size=2,
            pp_size=2,
            dp_size=2,
        )
    )


@pytest.mark.parametrize("option", [*OPTIONS, *SIZES])
def test_what_cannot_be_proven_is_refused_in_a_line(option: str) -> None:
    value: Any = "prefill" if option == "disaggregation_mode" else 2 if option in SIZES else True
    with pytest.raises(UnsupportedEngine, match=f"leave out --{option.replace('_', '-')}$") as caught:
        refuse_unsupported(parse(**{option: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", VARIABLES)
def test_variables_are_refused_too(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "0")
    refuse_unsupported(parse())
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UnsupportedEngine, match=f"unset {variable}$"):
        refuse_unsupported(parse())


def test_graphs_that_hand_out_nothing_are_refused() -> None:
    with pytest.raises(UnsupportedEngine, match="breakable CUDA graphs"):
        refuse_unsupported(parse(cuda_graph_backend_decode="breakable"))


def test_a_verifier_needs_its_tokenizer() -> None:
    refuse_unsupported(parse(skip_tokenizer_init=True))
    with pytest.raises(UnsupportedEngine, match="leave out --skip-tokenizer-init"):
        refuse_unsupported(parse("--toploc-role", "verifier", skip_tokenizer_init=True))


@pytest.mark.parametrize(
    ("arguments", "theirs", "captures"),
    [
        ((), {}, CAPTURES),
        ((), {"max_running_requests": 64}, 64),
        (("--toploc-captures", "8"), {"max_running_requests": 64}, 8),
    ],
)
def test_captures_are_bounded(arguments: tuple[str, ...], theirs: dict[str, Any], captures: int) -> None:
    launch = settings_from(parse(*arguments, **theirs), "/channel").launch
    assert launch is not None
    assert launch.captures == captures


def test_what_the_engine_is_started_with() -> None:
    theirs = {"served_model_name": "m", "dp_size": 2, "attn_dp_size": 3, "revision": "r", "skip_tokenizer_init": True}
    settings = settings_from(parse(**theirs), "/channel")
    assert settings.launch is not None
    assert settings.launch.model_dump() == {
        "model": "/models/m",
        "name": "m",
        "engines": 6,
        "captures": CAPTURES,
        "revision": "r",
        "load_format": "auto",
        "download_dir": None,
        "tokenizer": False,
    }
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_thresholds_that_are_none_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidThresholds):
        settings_from(parse("--toploc-thresholds", "no-such-name"), "/channel")


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), ("", None), ("a, b", "a,b,toploc"), ("toploc,a", "toploc,a")]
)
def test_plugins_that_the_operator_chose_stay(given: str | None, expected: str | None) -> None:
    assert plugin_allow_list(given) == expected


def test_the_plugin_does_nothing_in_a_server_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOPLOC_SETTINGS", raising=False)
    monkeypatch.setattr(plugin, "install", lambda: pytest.fail("it was installed"))
    plugin.register()


@pytest.mark.parametrize("error", [UnsupportedEngine("toploc: SGLang is another"), ImportError("no module"), OSError()])
def test_a_plugin_that_fails_ends_its_process(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """SGLang logs every Exception, and serves on."""
    monkeypatch.setenv("TOPLOC_SETTINGS", Settings(channel="/channel").model_dump_json())

    def fail() -> None:
        raise error

    monkeypatch.setattr(plugin, "install", fail)
    with pytest.raises(SystemExit) as caught:
        plugin.register()
    assert str(caught.value.code).startswith("toploc: ")
    assert "\n" not in str(caught.value.code)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "SGLang is not installed; pip install"),
        ("0.5.16", "SGLang 0.5.16 is not one this version knows; install one from 0.5.17 to 0.5.23"),
        ("0.5.24rc1", "SGLang 0.5.24rc1 is not one"),
        ("0.6.0", "SGLang 0.6.0 is not one"),
        ("unknown", "SGLang unknown is not one"),
        ("0.5.17", None),
        ("0.5.23.post1+cu130", None),
    ],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, found: str | None, problem: str | None) -> None:
    monkeypatch.setattr(version, "installed_version", lambda: found)
    if problem is None:
        version.require_version()
        return
    with pytest.raises(UnsupportedEngine, match=f"^toploc: {problem}"):
        version.require_version()


def test_nothing_is_imported_before_its_time() -> None:
    """Of SGLang, since that takes seconds; of Prometheus, which decides then whether several processes count."""
    code = (
        "import sys, argparse\n"
        "from toploc_proxy.engines.sglang.serve import command, options, refusals\n"
        "from toploc_proxy.options import check_files\n"
        "parser = argparse.ArgumentParser(); options.add_options(parser)\n"
        "check_files(parser.parse_args([]))\n"
        "print([name for name in ('sglang', 'vllm', 'prometheus_client') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
