"""What the subcommands' argument parsers share: types that say what was expected, and options that mean the same."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from .errors import ToplocError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


def positive(text: str) -> int:
    """1 or more."""
    number = _number(text, int, "a whole number")
    if number < 1:
        raise ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(number)


def seconds(text: str) -> float:
    """More than 0, and less than 30 years."""
    number = _number(text, float, "seconds")
    if not 0 < number < 10**9:
        raise ArgumentTypeError(f"expected more than 0 seconds, got {text}")
    return number


def seconds_or_none(text: str) -> float:
    """0 or more, and less than 30 years."""
    return 0.0 if _number(text, float, "seconds") == 0 else seconds(text)


def share(text: str) -> float:
    """Above 0, up to 1."""
    number = _number(text, float, "a share")
    if not 0 < number <= 1:
        raise ArgumentTypeError(f"expected a share above 0, up to 1, got {text}")
    return number


def rate(text: str) -> float:
    """Between 0 and 1, both excluded."""
    number = _number(text, float, "a share")
    if not 0 < number < 1:
        raise ArgumentTypeError(f"expected a share between 0 and 1, got {text}")
    return number


def add_api_key(parser: ArgumentParser, whose: str) -> None:
    """The option that `api_key` reads."""
    parser.add_argument("--api-key-env", metavar="NAME", help=f"environment variable with {whose} API key")


def api_key(args: Namespace) -> str | None:
    """The key in the variable that was named. Raises ToplocError if it is not set."""
    name = args.api_key_env
    key = os.environ.get(name) if name else None
    if name and not key:
        raise ToplocError(f"--api-key-env: {name} is not set")
    return key


def split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands before and behind `--`."""
    place = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def _number(text: str, kind: type[int] | type[float], name: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ArgumentTypeError(f"expected {name}, got {text}") from None
