"""Command-line flags that the experiment's commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def add_flag(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """`--some_name`, as the original's scripts spell it, and `--some-name`."""
    parser.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]), **options)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Flags, and what is after `--` for the server."""
    split = list(arguments).index("--") if "--" in arguments else len(arguments)
    return parser.parse_args(arguments[:split]), tuple(arguments[split + 1 :])


def positive(text: str) -> int:
    """A flag's value. Raises argparse's error for less than 1."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return found
