"""What a program got right, by family and question, and each case that it did not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..foreign import printable
from .answers import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cases import Case


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what is wrong with its answer, None if nothing is."""

    case: Case
    problem: str | None


def table_of(results: Sequence[Result]) -> str:
    """Rows of passed and failed cases, then a line for each that failed, with what was asked."""
    asked = Counter((result.case.family, result.case.question) for result in results)
    failed = Counter((result.case.family, result.case.question) for result in results if result.problem)
    lines = [f"{'family':10}{'question':10}{'passed':>7}{'failed':>7}"]
    for key, count in asked.items():
        lines.append(f"{key[0]:10}{key[1]:10}{count - failed[key]:7}{failed[key]:7}")
    total = failed.total()
    lines.append(f"{'all':20}{len(results) - total:7}{total:7}")
    for result in results:
        if result.problem:
            lines += ["", f"FAILED {result.case.id}", f"  {result.problem}", f"  asked: {shown(result.case.input)}"]
    return "\n".join(map(printable, lines))
