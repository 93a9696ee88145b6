"""`toploc serve` has whatever `vllm serve` has: every flag as vLLM declares it, every route as vLLM registers it."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from starlette.routing import Mount, Route
from toploc_proxy.engines.vllm.serve.command import make_parser
from toploc_proxy.engines.vllm.serve.plugins import plugin_allow_list
from toploc_proxy.settings import ENVIRONMENT_VARIABLE, Settings
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.entrypoints.launchers.app import build_app
from vllm.utils.argparse_utils import FlexibleArgumentParser

OUR_ROUTES = {
    ("/v1/toploc", "GET"),
    ("/v1/toploc/page/events", "GET"),
    ("/v1/toploc/page/rows", "POST"),
    ("/v1/toploc/page/verifications/{name}", "GET"),
    ("/v1/toploc/page/verify", "POST"),
    ("/v1/toploc/proofs/{response_id}", "GET"),
    ("/v1/toploc/receipts/{response_id}", "GET"),
    ("/v1/toploc/verify", "POST"),
}


def vllms_parser() -> FlexibleArgumentParser:
    parser = FlexibleArgumentParser(prog="vllm")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    return parser


def flags(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """Every argument of `serve`, by destination, with all that decides how it is read."""
    [subparsers] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return {
        action.dest: {
            "kind": type(action),
            "options": action.option_strings,
            "nargs": action.nargs,
            "const": action.const,
            "default": repr(action.default),
            "choices": action.choices and list(action.choices),
            "required": action.required,
            "deprecated": getattr(action, "deprecated", None),
        }
        for action in subparsers.choices["serve"]._actions
    }


def test_every_flag_of_vllm_is_declared_as_vllm_declares_it() -> None:
    vllms, ours = flags(vllms_parser()), flags(make_parser()[1])
    assert len(vllms) > 150
    assert {name: ours.get(name) for name in vllms} == vllms
    assert all(ours[name]["options"][0].startswith("--toploc-") for name in ours.keys() - vllms.keys())


@pytest.mark.parametrize(
    "arguments",
    [
        ["model"],
        ["model", "--tensor-parallel-size", "4", "--dtype=half", "--enforce-eager", "--no-enable-prefix-caching"],
        ["--model", "m", "-tp", "2", "--max_model_len", "4k", "--served-model-name", "a", "b", "--api-key", "x", "y"],
        ["model", "--speculative-config", '{"method": "ngram"}', "--compilation-config.mode", "3", "-O2"],
    ],
)
def test_flags_mean_what_they_mean_to_vllm(arguments: list[str]) -> None:
    theirs = vars(vllms_parser().parse_args(["serve", *arguments]))
    ours = vars(make_parser()[1].parse_args(["serve", *arguments]))
    assert {name: repr(ours.get(name)) for name in theirs} == {name: repr(value) for name, value in theirs.items()}
    assert all(name.startswith("toploc_") for name in ours.keys() - theirs.keys())


def routes(monkeypatch: pytest.MonkeyPatch, settings: Settings | None) -> list[tuple[str, str, frozenset[str], str]]:
    """Of the application that vLLM makes, with those that its OpenAI document leaves out."""
    with monkeypatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", plugin_allow_list(None))
        if settings is not None:
            patch.setenv(ENVIRONMENT_VARIABLE, settings.model_dump_json())
        app = build_app(vllms_parser().parse_args(["serve", "model"]), ("generate",))
    found = []
    for route in app.routes:
        assert isinstance(route, Route | Mount)
        methods = frozenset(getattr(route, "methods", None) or ())
        endpoint = getattr(getattr(route, "endpoint", None), "__qualname__", "")
        found.append((type(route).__name__, route.path, methods, endpoint))
    return found


def test_every_route_of_vllm_is_there_as_vllm_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = routes(monkeypatch, None)
    proving = routes(monkeypatch, Settings(channel="/nowhere"))
    assert len(plain) > 25
    assert [route for route in proving if not route[1].startswith("/v1/toploc")] == plain
    added = {(path, *methods) for _, path, methods, _ in proving} - {(path, *methods) for _, path, methods, _ in plain}
    assert added == OUR_ROUTES
