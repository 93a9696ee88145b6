"""The options of `toploc sglang` beside SGLang's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toploc.arguments import positive

from .... import options
from ....settings import Launch, Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

CAPTURES: Final = 512
"""Answers in progress that are captured where nobody says how many: SGLang itself admits up to 4,096."""


def add_options(parser: ArgumentParser) -> None:
    """Those that any engine has, and those that are SGLang's."""
    group = options.add_group(parser)
    options.add_proving_options(group)
    group.add_argument(
        "--toploc-captures",
        type=positive,
        metavar="N",
        help="Answers in progress, of one engine, whose hidden states are kept; those beyond have "
        f"`capture_slots_exhausted` (default: --max-running-requests, else {CAPTURES}).",
    )
    options.add_verifying_options(group)


def settings_from(args: Namespace, channel: str) -> Settings:
    """Raises InvalidThresholds before anything is loaded."""
    launch = Launch(
        model=args.model_path,
        name=args.served_model_name or args.model_path,
        engines=max(1, args.dp_size or 1) * max(1, getattr(args, "attn_dp_size", None) or 1),
        captures=args.toploc_captures or args.max_running_requests or CAPTURES,
        revision=args.revision,
        load_format=str(args.load_format),
        download_dir=args.download_dir,
        tokenizer=not args.skip_tokenizer_init,
    )
    return options.settings_from(args, channel).model_copy(update={"launch": launch})
