"""The options of `toploc serve` beside vLLM's own."""

from __future__ import annotations

import contextlib
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .... import options
from ....channel.relay import read_secret
from ....settings import Role, Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_options(parser: ArgumentParser) -> None:
    """Those that any engine has, and those that are vLLM's."""
    group = options.add_group(parser)
    options.add_proving_options(group)
    group.add_argument(
        "--toploc-seed-requests",
        action="store_true",
        help="Draw sampled answers from a random seed where the request has none, so that a verifier can replay them.",
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
    options.add_verifying_options(group)
    group.add_argument(
        "--toploc-copy-head",
        action="store_true",
        help="With tensor parallelism: keep a copy of the whole output head on the first rank, so that verifications "
        "check the tokens too (vocabulary x hidden size x 2 bytes of that GPU; always with --toploc-role verifier).",
    )
    group.add_argument(
        "--toploc-verify-priority",
        type=int,
        default=1,
        metavar="N",
        help="Of verifications in the engine's queue; more is later, and answers have 0. Without vLLM's "
        "--scheduling-policy priority all are served in order of arrival.",
    )


def settings_from(args: Namespace, channel: str) -> Settings:
    """Raises UnsupportedEngine if the side channel's secret cannot be used."""
    settings = options.settings_from(args, channel)
    path = args.toploc_channel_secret
    return settings.model_copy(
        update={
            "secret": read_secret(path) if path else settings.secret,
            "remote": args.toploc_channel,
            "seed_requests": args.toploc_seed_requests,
            "copy_head": args.toploc_copy_head or args.toploc_role == Role.VERIFIER.value,
            "verify_priority": args.toploc_verify_priority,
        }
    )


def _address(text: str) -> str:
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme == "tcp" and parts.hostname and parts.port and not (parts.path or parts.query):
            return text
    raise ArgumentTypeError(f"{text} is not tcp://HOST:PORT")
