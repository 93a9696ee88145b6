"""`toploc sglang`: SGLang's server with our plugin on."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from ....channel.addresses import channel_directory
from ....options import check_files
from ....settings import Role
from ...guards import load, require
from .. import reliances
from ..plugin import install
from ..version import require_version
from .options import add_options, settings_from
from .plugins import plugin_allow_list, require_plugin
from .refusals import refuse_unsupported

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Runs the server until it is told to stop.

    Args:
        arguments: those of `python -m sglang.launch_server`, and ours, which begin with `--toploc-`.
    """
    require_version()
    require_plugin()
    # Read by SGLang in every process it starts.
    if (plugins := plugin_allow_list(os.environ.get("SGLANG_PLUGINS"))) is not None:
        os.environ["SGLANG_PLUGINS"] = plugins
    require(*reliances.COMMAND_LINE)
    args, theirs = parse(arguments)
    refuse_unsupported(args)
    check_files(args)
    require(*reliances.API_SERVER)
    with channel_directory() as channel:
        settings_from(args, channel).to_environ()
        install()
        serve(theirs)


def parse(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """All options, and SGLang's own as its own parser takes them. Ends the process for wrong ones, and for `--help`."""
    parser = make_parser()
    merged = list(arguments)
    if any(argument == "--config" or argument.startswith("--config=") for argument in merged):
        merged = load(reliances.CONFIG_FILES)(parser).merge_config_with_args(merged)
    ours = ArgumentParser(add_help=False, allow_abbrev=False)
    add_options(ours)
    args, theirs = parser.parse_args(merged), ours.parse_known_args(merged)[1]
    if args.toploc_role == Role.VERIFIER.value and not args.skip_server_warmup:
        # It is a request of SGLang's to /generate, which is not there, and SGLang ends where it fails.
        theirs.append("--skip-server-warmup")
    return args, theirs


def make_parser() -> ArgumentParser:
    """SGLang's own, with our options beside its own."""
    parser = ArgumentParser("toploc sglang", allow_abbrev=False)
    load(reliances.SERVER_ARGS).add_cli_args(parser)
    add_options(parser)
    return parser


def serve(arguments: list[str]) -> None:
    """As `python -m sglang.launch_server` does (sglang/launch_server.py), with our application around its own."""
    from sglang.launch_server import run_server
    from sglang.srt.entrypoints import http_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    server_args = load(reliances.PREPARE)(arguments)
    run_http_server = http_server._setup_and_run_http_server

    def attach_and_run(*args: Any, **kwargs: Any) -> Any:
        # Not before: Prometheus decides when it is imported whether several processes count, and SGLang tells it so
        # while it starts its own.
        from ..endpoint import attach_here

        attach_here()
        return run_http_server(*args, **kwargs)

    http_server._setup_and_run_http_server = attach_and_run
    try:
        run_server(server_args)
    finally:
        sys.stdout.flush()
        kill_process_tree(os.getpid(), include_parent=False)
