"""`toploc serve`: `vllm serve` with our plugins on."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from argparse import ArgumentTypeError
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from toploc.errors import InvalidKey, UnsupportedEngine
from toploc.receipts.keys import load_signing_keys, load_trusted_keys
from toploc.thresholds.bounds import Thresholds

from .channel.addresses import channel_directory
from .channel.relay import Relay, read_secret
from .log import logger
from .settings import ENVIRONMENT_VARIABLE, OnError, Role, Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup
    from collections.abc import Iterator, Sequence

    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

PLUGIN = "toploc"

# Names of variables that Ray hands to workers besides vLLM's own (vllm/ray/ray_env.py).
RAY_COPIES = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"

# Groups that vLLM loads whole unless VLLM_PLUGINS is set (vllm/plugins/__init__.py).
PLUGIN_GROUPS = (
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)


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


def require_plugins() -> None:
    """Raises UnsupportedEngine if vLLM would not find our plugins, and so serve without proofs: a checkout on the path
    can be imported, but has no entry points."""
    for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
        if PLUGIN not in [point.name for point in entry_points(group=group)]:
            raise UnsupportedEngine(
                f"toploc: the package's entry point in {group} is not installed, so vLLM would serve without proofs; "
                "pip install toploc-proxy, or a checkout with pip install --editable"
            )


def plugin_allow_list(given: str | None) -> str:
    """The value of VLLM_PLUGINS that adds ours to what vLLM would load without it.

    Setting the variable turns off every plugin that it does not name; endpoint plugins, the other way round, load
    only if it names them.
    """
    names = (
        given.split(",")
        if given is not None
        else [p.name for group in PLUGIN_GROUPS for p in entry_points(group=group)]
    )
    return ",".join(dict.fromkeys([*names, PLUGIN]))


def ray_copies(given: str | None) -> str:
    """The value of VLLM_RAY_EXTRA_ENV_VARS_TO_COPY that has Ray's workers told of our settings too."""
    return ",".join(filter(None, (given, ENVIRONMENT_VARIABLE)))


def add_options(parser: ArgumentParser) -> None:
    """Our options, as a group of vLLM's own parser, so that `--help` and `--config` files know them."""
    group = parser.add_argument_group("toploc", "Proofs of inference (toploc-proxy).")
    group.add_argument(
        # False by default, since vLLM drops what a `--config` file sets to false.
        "--toploc-only-on-request",
        action="store_true",
        help='Leave out proofs unless the request says `"toploc": {"enabled": true}`.',
    )
    group.add_argument(
        "--toploc-seed-requests",
        action="store_true",
        help="Draw sampled answers from a random seed where the request has none, so that a verifier can replay them.",
    )
    group.add_argument(
        "--toploc-on-error",
        choices=[choice.value for choice in OnError],
        default=OnError.REPORT.value,
        help="When an answer cannot be proven: deliver it with `toploc_proofs.error`, or fail with HTTP 500.",
    )
    group.add_argument(
        "--toploc-finalize-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="Longest wait for a worker's proofs after an answer's last token.",
    )
    group.add_argument(
        "--toploc-channel",
        type=_address,
        metavar="tcp://HOST:PORT",
        help="Where workers on other machines fetch what they prove: an address of the head, which binds it; the same "
        "on all machines. Without it, workers are reached through sockets in a directory.",
    )
    group.add_argument(
        "--toploc-channel-secret",
        metavar="FILE",
        help="File with the secret that all machines share, 32 characters or more; needed with --toploc-channel "
        "wherever `toploc serve` is started on several machines.",
    )
    group.add_argument(
        "--toploc-signing-key",
        action="append",
        default=[],
        metavar="FILE",
        help="Sign answers with this key (`toploc keygen`). Given again: older keys, private or public, that are "
        "published beside it.",
    )
    group.add_argument(
        "--toploc-receipts",
        metavar="FILE",
        help="Keep recent receipts in this SQLite file, which API servers of one host share (default: in memory).",
    )
    group.add_argument(
        "--toploc-trusted-keys",
        metavar="FILE",
        help="Public keys of the providers whose receipts count in verifications: what `toploc keygen` printed, or "
        "their GET /v1/toploc.",
    )
    add_verify_options(group)


def add_verify_options(group: _ArgumentGroup) -> None:
    group.add_argument(
        "--toploc-role",
        choices=[role.value for role in Role],
        default=Role.PROVER.value,
        help="`verifier`: answer nothing but verifications and descriptions; all else is a 404.",
    )
    group.add_argument(
        "--toploc-thresholds",
        metavar="NAME|FILE",
        help="Bounds that answers are held against: a name in configs/thresholds, or a YAML file (default: those "
        "calibrated for a model of this name and dtype, else the paper's).",
    )
    group.add_argument(
        "--toploc-copy-head",
        action="store_true",
        help="With tensor parallelism: keep a copy of the whole output head on the first rank, so that verifications "
        "check the tokens too (vocabulary x hidden size x 2 bytes of that GPU; always with --toploc-role verifier).",
    )
    limits = {
        "concurrency": (64, "Most verifications at once; more are an HTTP 429."),
        "tokens": (2**17, "Most tokens, with their prompts, in verifications at once; one item of more is a 413."),
        "body-bytes": (8 * 2**20, "Longest body of a verification; a longer one is a 413."),
    }
    for name, (default, text) in limits.items():
        group.add_argument(f"--toploc-max-verify-{name}", type=_positive, default=default, metavar="N", help=text)
    group.add_argument(
        "--toploc-verify-priority",
        type=int,
        default=1,
        metavar="N",
        help="Of verifications in the engine's queue; more is later, and answers have 0. Without vLLM's "
        "--scheduling-policy priority all are served in order of arrival.",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not a positive number")
    return number


def _address(text: str) -> str:
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme == "tcp" and parts.hostname and parts.port and not (parts.path or parts.query):
            return text
    raise ArgumentTypeError(f"{text} is not tcp://HOST:PORT")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds


def settings_from(args: Namespace, channel: str) -> Settings:
    """Raises UnsupportedEngine if the side channel's secret cannot be used."""
    path = args.toploc_channel_secret
    return Settings(
        secret=read_secret(path) if path else secrets.token_hex(32),
        channel=channel,
        remote=args.toploc_channel,
        proofs=not args.toploc_only_on_request,
        seed_requests=args.toploc_seed_requests,
        on_error=OnError(args.toploc_on_error),
        finalize_timeout=args.toploc_finalize_timeout,
        role=Role(args.toploc_role),
        thresholds=_absolute(args.toploc_thresholds),
        copy_head=args.toploc_copy_head or args.toploc_role == Role.VERIFIER.value,
        verify_concurrency=args.toploc_max_verify_concurrency,
        verify_tokens=args.toploc_max_verify_tokens,
        verify_body_bytes=args.toploc_max_verify_body_bytes,
        verify_priority=args.toploc_verify_priority,
        signing_keys=tuple(str(Path(path).absolute()) for path in args.toploc_signing_key),
        trusted_keys=str(Path(args.toploc_trusted_keys).absolute()) if args.toploc_trusted_keys else None,
        receipts=str(Path(args.toploc_receipts).absolute()) if args.toploc_receipts else None,
    )


def check_signing(args: Namespace) -> None:
    """Raises InvalidKey or ReceiptStoreError for files that cannot be used, before anything is loaded."""
    from .receipts.store import check_store

    paths = args.toploc_signing_key
    if args.toploc_receipts and not paths:
        raise InvalidKey("toploc: --toploc-receipts needs --toploc-signing-key")
    if paths:
        load_signing_keys(paths)
        if Path(paths[0]).stat().st_mode & 0o077:
            logger.warning("toploc: %s can be read by others than its user", paths[0])
    if args.toploc_receipts:
        check_store(args.toploc_receipts)
    if args.toploc_trusted_keys:
        load_trusted_keys(args.toploc_trusted_keys)


def _absolute(thresholds: str | None) -> str | None:
    """Names stay; files do not depend on where a process runs. Raises InvalidThresholds before anything is loaded."""
    if thresholds is None:
        return None
    Thresholds.load(thresholds)
    return str(Path(thresholds).absolute()) if thresholds.endswith((".yaml", ".yml")) else thresholds


def refuse_unsupported(args: Namespace) -> None:
    """Raises UnsupportedEngine for options under which answers could not be proven, before anything is loaded."""
    for refused, why in reasons_to_refuse(args):
        if refused:
            raise UnsupportedEngine(f"toploc: {why}")


def reasons_to_refuse(args: Namespace) -> Iterator[tuple[bool, str]]:
    """Whether each option is set that proofs do not go with, and what to do about it. vLLM 0.26 lacks some of them."""
    rust = os.environ.get("VLLM_USE_RUST_FRONTEND", "0")
    yield (
        bool(getattr(args, "grpc", False)),
        "the gRPC front end has no HTTP responses to carry proofs; leave out --grpc",
    )
    yield (
        rust not in ("", "0"),
        "the Rust front end runs no Python plugins, so its answers would carry no proofs; unset VLLM_USE_RUST_FRONTEND",
    )
    yield (
        bool(getattr(args, "kv_sharing_fast_prefill", False)),
        (
            "KV-sharing fast prefill leaves prompt positions without valid hidden states; "
            "leave out --kv-sharing-fast-prefill"
        ),
    )
    yield (
        getattr(args, "prefill_context_parallel_size", 1) > 1,
        "prefill context parallelism is not tested with proofs; leave out --prefill-context-parallel-size",
    )
    yield (
        bool((getattr(args, "speculative_config", None) or {}).get("enable_adaptive_verification")),
        (
            "with adaptive verification the CPU does not know which rows are whose; "
            "leave enable_adaptive_verification out of --speculative-config"
        ),
    )
    yield (
        bool(getattr(args, "enable_elastic_ep", False)),
        "engines that come and go are not tested with proofs; leave out --enable-elastic-ep",
    )
    yield (
        bool(getattr(args, "toploc_seed_requests", False))
        and getattr(args, "enable_chunked_prefill", None) is not False
        and _on_cpu(),
        (
            "on CPUs vLLM's engine ends at a seeded request whose prompt it prefills in chunks; add "
            "--no-enable-chunked-prefill, or leave out --toploc-seed-requests"
        ),
    )
    ray, several = uses_ray(args), uses_several_machines(args)
    channel, secret = (getattr(args, f"toploc_channel{name}", None) for name in ("", "_secret"))
    yield (
        (ray or several) and not channel,
        (
            "workers on other machines cannot reach a local side channel (Ray, --nnodes, --headless, "
            "--data-parallel-size-local); add --toploc-channel tcp://HOST:PORT"
        ),
    )
    yield (
        several and not secret,
        "each machine has to know the side channel's secret; add --toploc-channel-secret FILE, the same on all",
    )
    yield bool(secret) and not channel, "--toploc-channel-secret needs --toploc-channel tcp://HOST:PORT"


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def uses_ray(args: Namespace) -> bool:
    """Ray starts workers, here or elsewhere, and hands them the environment."""
    return "ray" in (
        getattr(args, "distributed_executor_backend", None),
        getattr(args, "data_parallel_backend", None),
    )


def uses_several_machines(args: Namespace) -> bool:
    """`toploc serve` is started on each."""
    local = getattr(args, "data_parallel_size_local", None)
    elsewhere = local is not None and local < (getattr(args, "data_parallel_size", None) or 1)
    return (
        (getattr(args, "nnodes", None) or 1) > 1
        or bool(getattr(args, "headless", False))
        or (elsewhere and not getattr(args, "data_parallel_hybrid_lb", False) and not uses_ray(args))
    )


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
