"""The published tables: which version of vLLM has what our code relies on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from engine_sources import REPOSITORY
from toploc_proxy.engines.vllm.reliances import GROUPS, TESTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from source_tree import Lacks, SourceTree
    from toploc_proxy.engines.reliance import Reliance

PAGE: Final = REPOSITORY / "docs" / "vllm-versions.md"
SUMMARY_PAGE: Final = REPOSITORY / "docs" / "operations.md"
BEGIN: Final = "<!-- vllm versions -->\n"
END: Final = "<!-- end -->"
HEAD: Final = ("module", "what of it")
REFUSED: Final = "refused"

INTRODUCTION: Final = """\
# vLLM versions

What our code relies on in vLLM, looked for in the Python files of each version's wheel: `make compat`, {day}. \
Nothing was run for it. [operations.md](operations.md#vllm-versions) says what was run.

- *yes*: all of it is there. A number says which of the places has it.
- *no*: the last column says what is missing, and what is done then. A version for which it says *refused* does not \
start: `toploc serve` ends with a line that names what is missing.
"""

SUMMARY: Final = """\
The package takes vLLM {first} to {last}. It uses {number} things of vLLM's code, none of which vLLM promises to keep. \
Each was looked for in every minor version's wheel (`make compat`, {day}; [all of them](vllm-versions.md)). \
A version that lacks one is refused at start, in a line that names it. `make compat` also serves with the newest \
version's Python files over the compiled part of another, on a CPU.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """What each version's sources lack of each reliance, in the list's order."""

    columns: Mapping[str, tuple[Lacks, ...]]

    @classmethod
    def of(cls, trees: Mapping[str, SourceTree]) -> Table:
        return cls({version: tuple(map(tree.lacks, listed())) for version, tree in trees.items()})

    def refused(self, version: str) -> list[str]:
        """What a version lacks that nothing replaces."""
        return [named(reliance, lacks) for reliance, lacks in self._wanting(version) if not reliance.without]

    def _wanting(self, version: str) -> Iterator[tuple[Reliance, Lacks]]:
        return ((of, lacks) for of, lacks in zip(listed(), self.columns[version], strict=True) if lacks.names)

    def page(self, day: str) -> str:
        parts = [INTRODUCTION.format(day=day)]
        rows = zip(listed(), zip(*self.columns.values(), strict=True), strict=True)
        for title, group in GROUPS.items():
            parts += [f"## {title}\n", line(*HEAD, *self.columns, "where it is missing")]
            parts.append(line(*["---"] * (len(HEAD) + len(self.columns) + 1)))
            for reliance, found in islice(rows, len(group)):
                parts.append(
                    line(*described(reliance), *(cell(reliance, lacks) for lacks in found), outcome(reliance, found))
                )
            parts.append("")
        return "\n".join(parts)

    def summary(self, day: str) -> str:
        """Between the marks of the page on operation."""
        first, *_, last = (version for version in self.columns if not self.refused(version))
        rows = [SUMMARY.format(day=day, number=len(listed()), first=first, last=last)]
        rows += [line("vLLM", "tests were run", "what it lacks, and what is done then"), line(*["---"] * 3)]
        for version in self.columns:
            lacking = [f"{named(of, lacks)}: {of.without or REFUSED}" for of, lacks in self._wanting(version)]
            rows.append(line(version, TESTED.get(version, ""), "; ".join(lacking)))
        return "\n".join([*rows, ""])


def listed() -> list[Reliance]:
    return list(chain.from_iterable(GROUPS.values()))


def described(reliance: Reliance) -> tuple[str, str]:
    """The cells that say what is relied on. Our files are left out, whose names say nothing of a version."""
    places = [f"`{module}`" for module in reliance.modules]
    where = places[0] if len(places) == 1 else ", ".join(f"{i} {place}" for i, place in enumerate(places, 1))
    taken = ", ".join([*reliance.parameters, *(f"{name}=" for name in reliance.keywords)])
    what = f"`{reliance.name}({taken})`" if taken else f"`{reliance.name}`" if reliance.name else ""
    has = words([*reliance.members, *reliance.attributes, *map(repr, reliance.texts)])
    return where, ": ".join(filter(None, (what, has)))


def cell(reliance: Reliance, lacks: Lacks) -> str:
    if lacks.names:
        return "no"
    return "yes" if len(reliance.modules) == 1 else str(lacks.place + 1)


def outcome(reliance: Reliance, cells: Sequence[Lacks]) -> str:
    missing = dict.fromkeys(name for lacks in cells for name in lacks.names)
    return f"{words(list(missing))}: {reliance.without or REFUSED}" if missing else ""


def named(reliance: Reliance, lacks: Lacks) -> str:
    own = f"`{reliance.name or reliance.modules[0]}`"
    return own if reliance.name in lacks.names else f"{words(lacks.names)} of {own}"


def words(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def published() -> tuple[list[str], list[list[str]]]:
    """The committed page's versions, and the cells of its rows."""
    lines = [text for text in PAGE.read_text().splitlines() if text.startswith("| ") and not text.startswith("| ---")]
    head, *rows = (text.removeprefix("| ").removesuffix(" |").split(" | ") for text in lines)
    return head[len(HEAD) : -1], [row for row in rows if row != head]


def published_versions() -> list[str]:
    """Those of the committed page that are not refused."""
    versions, rows = published()
    wanting = [row[len(HEAD) : -1] for row in rows if row[-1].endswith(f": {REFUSED}")]
    return [version for i, version in enumerate(versions) if all(cells[i] != "no" for cells in wanting)]


def publish(table: Table, day: str) -> None:
    """Raises ValueError if the page on operation has lost its marks."""
    PAGE.write_text(table.page(day))
    before, begin, rest = SUMMARY_PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{SUMMARY_PAGE}: no {BEGIN.strip()} … {END}")
    SUMMARY_PAGE.write_text(f"{before}{begin}{table.summary(day)}{end}{after}")
