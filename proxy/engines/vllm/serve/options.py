"""The options of `toploc serve` beside vLLM's own."""

from __future__ import annotations

import contextlib
import re
import secrets
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from toploc.arguments import positive, seconds
from toploc.thresholds.bounds import Thresholds

from ....channel.relay import read_secret
from ....settings import OnError, Role, Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup


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
        type=seconds,
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
        "--toploc-proofs",
        metavar="FILE",
        help="Keep recent proofs in this SQLite file, which API servers of one host share (default: in memory).",
    )
    group.add_argument(
        "--toploc-trusted-keys",
        metavar="FILE",
        help="Public keys of the providers whose receipts count in verifications: what `toploc keygen` printed, or "
        "their GET /v1/toploc.",
    )
    group.add_argument(
        "--toploc-weights-digest",
        type=_digest,
        default="file",
        metavar="HEX|file|off",
        help="The digest of the weights that GET /v1/toploc and receipts name: this one, that of the model's files "
        "(`toploc weights-digest`; the default), or none.",
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
        group.add_argument(f"--toploc-max-verify-{name}", type=positive, default=default, metavar="N", help=text)
    group.add_argument(
        "--toploc-verify-priority",
        type=int,
        default=1,
        metavar="N",
        help="Of verifications in the engine's queue; more is later, and answers have 0. Without vLLM's "
        "--scheduling-policy priority all are served in order of arrival.",
    )


def _address(text: str) -> str:
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme == "tcp" and parts.hostname and parts.port and not (parts.path or parts.query):
            return text
    raise ArgumentTypeError(f"{text} is not tcp://HOST:PORT")


def _digest(text: str) -> str:
    if text in ("file", "off") or re.fullmatch("[0-9a-f]{64}", text):
        return text
    raise ArgumentTypeError(f"{text} is neither 64 digits of a SHA-256 in lower case, nor `file` or `off`")


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
        weights_digest=args.toploc_weights_digest,
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
        proofs_file=str(Path(args.toploc_proofs).absolute()) if args.toploc_proofs else None,
    )


def _absolute(thresholds: str | None) -> str | None:
    """Names stay; files do not depend on where a process runs. Raises InvalidThresholds before anything is loaded."""
    if thresholds is None:
        return None
    Thresholds.load(thresholds)
    return str(Path(thresholds).absolute()) if thresholds.endswith((".yaml", ".yml")) else thresholds
