"""`toploc serve`: `vllm serve` with our plugins on."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ....channel.addresses import channel_directory
from ....channel.relay import Relay
from .options import add_options, settings_from
from .plugins import RAY_COPIES, plugin_allow_list, ray_copies, require_plugins
from .refusals import check_signing, refuse_unsupported

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from ....settings import Settings


def main(arguments: Sequence[str]) -> None:
    """Runs the server until it is told to stop.

    Args:
        arguments: those of `vllm serve`, and ours, which begin with `--toploc-`.
    """
    require_plugins()
    # Read by vLLM when it is imported and in every process it starts.
    os.environ["VLLM_PLUGINS"] = plugin_allow_list(os.environ.get("VLLM_PLUGINS"))
    os.environ[RAY_COPIES] = ray_copies(os.environ.get(RAY_COPIES))
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

    cli_env_setup()
    serve, parser = make_parser()
    args = parser.parse_args(["serve", *arguments])
    _configure_logging(args)
    refuse_unsupported(args)
    check_signing(args)
    serve.validate(args)
    with channel_directory() as channel:
        settings = settings_from(args, channel)
        settings.to_environ()
        with relay_of(args, settings):
            serve.cmd(args)


def make_parser() -> tuple[ServeSubcommand, FlexibleArgumentParser]:
    """vLLM's own `serve`, and its parser with our options beside its own."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="toploc")
    serve = ServeSubcommand()
    serve_parser = serve.subparser_init(parser.add_subparsers(dest="subparser"))
    serve_parser.usage = "toploc serve [model_tag] [options]"
    serve_parser.epilog = (serve_parser.epilog or "").replace("vllm serve", "toploc serve")
    add_options(serve_parser)
    return serve, parser


def relay_of(args: Namespace, settings: Settings) -> contextlib.AbstractContextManager[object]:
    """What workers over TCP connect to, if this is the head of a server that has such."""
    head = not getattr(args, "headless", False) and not (getattr(args, "node_rank", None) or 0)
    if settings.remote is None or not head:
        return contextlib.nullcontext()
    engines = range(getattr(args, "data_parallel_size", None) or 1)
    return Relay(settings.channel, engines, settings.remote, settings.secret)


def _configure_logging(args: Namespace) -> None:
    # vLLM 0.26 has no such step.
    with contextlib.suppress(ImportError):
        from vllm.logger import configure_logging_from_args

        configure_logging_from_args(args)
