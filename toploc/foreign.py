"""Text from elsewhere, as messages and terminals may show it. Needs nothing that is not Python's own."""

from __future__ import annotations

from typing import Final

QUOTED: Final = 40
"""Characters of an answer's text that a message repeats."""


def quote(text: str) -> str:
    """Text as a message repeats it: on one line, in quotes, and not long."""
    return printable(f'"{text[:QUOTED]}"' if len(text) <= QUOTED else f'"{text[: QUOTED - 1]}…"')


def printable(text: str) -> str:
    """Text from elsewhere, with what could move a terminal's cursor or turn its text around made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
