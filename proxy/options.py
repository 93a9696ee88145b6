"""The options that a server of ours has beside its engine's own, whatever the engine."""

from __future__ import annotations

import os
import re
import secrets
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from toploc.arguments import positive, seconds
from toploc.errors import InvalidKey
from toploc.receipts.keys import load_signing_keys, load_trusted_keys
from toploc.thresholds.bounds import Thresholds

from .log import logger
from .settings import OnError, Page, Role, Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup


def add_group(parser: ArgumentParser) -> _ArgumentGroup:
    """Ours, as a group of the engine's own parser, so that its `--help` and `--config` files know them."""
    return parser.add_argument_group("toploc", "Proofs of inference (toploc-proxy).")


def add_proving_options(group: _ArgumentGroup) -> None:
    """What answers carry, and when."""
    group.add_argument(
        # False by default, since vLLM drops what a `--config` file sets to false.
        "--toploc-only-on-request",
        action="store_true",
        help='Leave out proofs unless the request says `"toploc": {"enabled": true}`.',
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


def add_verifying_options(group: _ArgumentGroup) -> None:
    """How the server verifies."""
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
        "--toploc-page",
        choices=[page.value for page in Page],
        default=Page.OWN.value,
        help="What GET /toploc shows of recent verifications: figures and verdicts, and the text to the API key that "
        "asked for them (`own`); no text; or there is no page.",
    )
    limits = {
        "concurrency": (64, "Most verifications at once; more are an HTTP 429."),
        "tokens": (2**17, "Most tokens, with their prompts, in verifications at once; one item of more is a 413."),
        "tokens-beside": (1024, "The same while the engine answers requests, whose steps these tokens make longer."),
        "body-bytes": (8 * 2**20, "Longest body of a verification; a longer one is a 413."),
    }
    for name, (default, text) in limits.items():
        group.add_argument(f"--toploc-max-verify-{name}", type=positive, default=default, metavar="N", help=text)


def settings_from(args: Namespace, channel: str) -> Settings:
    """Those that any engine has, with a fresh secret. Raises InvalidThresholds before anything is loaded."""
    return Settings(
        secret=secrets.token_hex(32),
        channel=channel,
        proofs=not args.toploc_only_on_request,
        on_error=OnError(args.toploc_on_error),
        finalize_timeout=args.toploc_finalize_timeout,
        weights_digest=args.toploc_weights_digest,
        role=Role(args.toploc_role),
        thresholds=_thresholds(args.toploc_thresholds),
        verify_concurrency=args.toploc_max_verify_concurrency,
        verify_tokens=args.toploc_max_verify_tokens,
        verify_tokens_beside=args.toploc_max_verify_tokens_beside,
        verify_body_bytes=args.toploc_max_verify_body_bytes,
        signing_keys=tuple(str(Path(path).absolute()) for path in args.toploc_signing_key),
        trusted_keys=str(Path(args.toploc_trusted_keys).absolute()) if args.toploc_trusted_keys else None,
        receipts=str(Path(args.toploc_receipts).absolute()) if args.toploc_receipts else None,
        page=Page(args.toploc_page),
        keyed=_is_keyed(getattr(args, "api_key", None)),
        proofs_file=str(Path(args.toploc_proofs).absolute()) if args.toploc_proofs else None,
    )


def check_files(args: Namespace) -> None:
    """Raises InvalidKey or StoreError for files that cannot be used, before anything is loaded."""
    from .stores.proofs import check_proofs
    from .stores.receipts import check_store

    paths = args.toploc_signing_key
    if args.toploc_receipts and not paths:
        raise InvalidKey("toploc: --toploc-receipts needs --toploc-signing-key")
    if paths:
        load_signing_keys(paths)
        if Path(paths[0]).stat().st_mode & 0o077:
            logger.warning("toploc: %s can be read by others than its user", paths[0])
    if args.toploc_receipts:
        check_store(args.toploc_receipts)
    if args.toploc_proofs:
        check_proofs(args.toploc_proofs)
    if args.toploc_trusted_keys:
        load_trusted_keys(args.toploc_trusted_keys)


def _digest(text: str) -> str:
    if text in ("file", "off") or re.fullmatch("[0-9a-f]{64}", text):
        return text
    raise ArgumentTypeError(f"{text} is neither 64 digits of a SHA-256 in lower case, nor `file` or `off`")


def _is_keyed(given: str | list[str] | None) -> bool:
    """Whether engines ask for a key: vLLM takes several, or one from the environment."""
    keys = [given] if isinstance(given, str) else given or [os.environ.get("VLLM_API_KEY", "")]
    return any(keys)


def _thresholds(given: str | None) -> str | None:
    """Names stay; files do not depend on where a process runs. Raises InvalidThresholds before anything is loaded."""
    if given is None:
        return None
    Thresholds.load(given)
    return str(Path(given).absolute()) if given.endswith((".yaml", ".yml")) else given
