"""What the page says first: how the answers fared, in a sentence or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from toploc.page.figures import counted

if TYPE_CHECKING:
    from ..table import Table

SAID: Final = {
    "rejected": ("is rejected", "are rejected"),
    "undecided": ("could not be verified", "could not be verified"),
    "accepted": ("is accepted", "are accepted"),
}
"""Of one response and of several, from the worst verdict to the best."""


@dataclass(frozen=True, slots=True)
class Headline:
    """`verdict` is the worst that any response has, `first` says of how many, `rest` what the others have.

    `verdict` is None where there is no response, since a small share of a short file may be nothing.
    """

    verdict: str | None
    first: str
    rest: str


def headline_of(table: Table) -> Headline:
    counts, total = table.total.verdicts, table.total.responses
    if not total:
        return Headline(None, "No response was drawn.", "")
    there = [verdict for verdict in SAID if counts[verdict]]
    worst = there[0]
    one, several = SAID[worst]
    if counts[worst] == total:
        first = f"The one response {one}." if total == 1 else f"All {counted(total, 'response')} {several}."
    else:
        first = f"{counts[worst]:,} of {counted(total, 'response')} {one if counts[worst] == 1 else several}."
    rest = [f"{counts[verdict]:,} {SAID[verdict][counts[verdict] > 1]}" for verdict in reversed(there[1:])]
    return Headline(worst, first, f"{', '.join(rest)}." if rest else "")
