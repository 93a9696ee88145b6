"""Which weights computed which rows of an answer, where others were loaded while it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

NOTHING: Final = 1 << 62
"""In place of a position: no step has run."""

Spans = list[tuple[int, int, int]]
"""Version of the weights, and the answer's tokens that they made: from one number up to another. The first begins at 0.
Versions count from 0, the weights that the worker was started with."""


@dataclass(slots=True)
class Weights:
    """Of one capture: each version under which a step of it ran, and the position of the first row that it computed."""

    version: int
    start: int
    later: list[tuple[int, int]] = field(default_factory=list)

    def change(self, version: int) -> None:
        """Steps from here on run under other weights."""
        self.later.append((version, NOTHING))

    def computed(self, position: int) -> None:
        """The weights of now computed rows from this position on, in place of any that were there."""
        version, first = self.later[-1]
        self.later[-1] = version, min(first, position)

    def spans(self, count: int) -> Spans:
        """Of an answer of `count` tokens. One of no tokens computed a part of the prompt. None at all: it is of the
        first weights."""
        if not self.version and not self.later:
            return []
        spans, end = [], count
        for version, position in reversed([(self.version, self.start), *self.later]):
            if position != NOTHING:
                begin = min(max(position - self.start, 0), end)
                spans.append((version, begin, end))
                end = begin
        return spans[::-1]
