"""Command-line flags that the experiment's commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toploc.arguments import split

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def add_flag(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """`--some_name`, as the original's scripts spell it, and `--some-name`."""
    parser.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]), **options)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Flags, and what is after `--` for the server."""
    ours, servers = split(arguments)
    return parser.parse_args(ours), tuple(servers)
