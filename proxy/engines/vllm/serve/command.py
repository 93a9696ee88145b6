"""`toploc serve`: `vllm serve` with our plugins on."""

from __future__ import annotations

import contextlib
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Final

from toploc.errors import UnsupportedEngine

from ....channel.addresses import channel_directory
from ....channel.relay import Relay
from ....options import check_files
from ...guards import load, require
from .. import reliances
from .options import add_options, settings_from
from .plugins import RAY_COPIES, plugin_allow_list, ray_copies, require_plugins
from .refusals import refuse_unsupported
from .verifier import set_for_verifier

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from ....settings import Settings


USAGE: Final = "toploc serve [model_tag] [options]"

DESCRIPTION: Final = "`vllm serve`, whose answers carry proofs. It takes every option of `vllm serve`, and these:"

EPILOG: Final = """\
vLLM's own options:
  toploc serve --help=all               all of them
  toploc serve --help=ModelConfig       a section
  toploc serve --help=max-model-len     one option, or a word to search for
"""


def main(arguments: Sequence[str]) -> None:
    """Runs the server until it is told to stop.

    Args:
        arguments: those of `vllm serve`, and ours, which begin with `--toploc-`.
    """
    if "--help" in arguments or "-h" in arguments:
        print(usage())
        return
    require_plugins()
    # Read by vLLM when it is imported and in every process it starts.
    os.environ["VLLM_PLUGINS"] = plugin_allow_list(os.environ.get("VLLM_PLUGINS"))
    os.environ[RAY_COPIES] = ray_copies(os.environ.get(RAY_COPIES))
    load(reliances.CLI_ENV_SETUP)()
    serve, parser = make_parser()
    args = parser.parse_args(["serve", *arguments])
    _configure_logging(args)
    set_for_verifier(args, graphs=_captures_graphs())
    refuse_unsupported(args)
    check_files(args)
    require(*reliances.API_SERVER)
    serve.validate(args)
    with channel_directory() as channel:
        settings = settings_from(args, channel)
        settings.to_environ()
        with relay_of(args, settings):
            serve.cmd(args)


def usage() -> str:
    """Our options, without the seconds that importing vLLM takes for its own."""
    parser = ArgumentParser(
        "toploc serve",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        add_help=False,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_options(parser)
    return parser.format_help().rstrip()


def make_parser() -> tuple[ServeSubcommand, FlexibleArgumentParser]:
    """vLLM's own `serve`, and its parser with our options beside its own."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="toploc")
    serve = ServeSubcommand()
    serve_parser = serve.subparser_init(parser.add_subparsers(dest="subparser"))
    serve_parser.usage = USAGE
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


def _captures_graphs() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cuda_alike())


def _configure_logging(args: Namespace) -> None:
    with contextlib.suppress(UnsupportedEngine):
        load(reliances.CONFIGURE_LOGGING)(args)
