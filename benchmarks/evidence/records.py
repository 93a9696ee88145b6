"""Measured rows in a JSONL file, each written when it is done, by any number of processes."""

from __future__ import annotations

import argparse
import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LONG = ", long"
"""The end of a row's name whose answers are longer than others'."""


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one kind of answers of one model by one verifier.

    `kind`: honest or altered. `prover`: how and with what answers were made. `chunks`: one list for each answer, in it
    one for each chunk of 32 tokens, in it the figures of figures.py.
    """

    model: str
    kind: str
    prover: str
    verifier: str
    chunks: list[list[list[float]]]

    @property
    def name(self) -> str:
        """Of what made the answers, however long they are."""
        return self.prover.removesuffix(LONG)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.model, self.prover, self.verifier


class Records:
    """The file of a study."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(asdict(row), separators=(",", ":")) + "\n")

    def __iter__(self) -> Iterator[Row]:
        if self.path.exists():
            with self.path.open(encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):  # else cut off by a kill
                        yield Row(**json.loads(line))

    def done(self) -> set[tuple[str, str, str]]:
        return {row.key for row in self}


def write_by_command(description: str | None, write: Callable[[Path, Path], str]) -> None:
    """The `main` of a script that makes documents: `write` has the file of rows and the folder, and returns a text."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(write(options.rows, options.folder))
