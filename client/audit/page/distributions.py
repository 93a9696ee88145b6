"""How the figures of an audit's chunks are distributed, by model."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from toploc.page.chunks import FIGURES
from toploc.page.figures import ratio

from ..entry import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..entry import Entry

STEPS: Final = 40
"""Bins of a distribution from nought to the bound. Beyond it they go on as wide."""
LAST: Final = 8 * STEPS
"""The bin of whatever is more than eight times its bound."""
MOST_MODELS: Final = 12
"""Stops answers whose every model is another from filling the page."""


class Distribution:
    """Of one figure over chunks, as a share of its bound, which is one of `bounds`.

    Bin i of `bins` counts shares above i / `STEPS`, up to (i + 1) / `STEPS`; the first also those of nought.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bins: Counter[int] = Counter()
        self.bounds: Counter[float] = Counter()
        self.beyond = 0
        self.worst: tuple[float, float] | None = None

    @property
    def chunks(self) -> int:
        return self.bins.total()

    def add(self, pair: tuple[float, float]) -> None:
        """A figure and its bound."""
        share = ratio(pair)
        # Less a little, since a figure that is its bound is within it.
        self.bins[LAST if share > LAST / STEPS else max(0, math.ceil(share * STEPS - 1e-9) - 1)] += 1
        self.bounds[pair[1]] += 1
        self.beyond += pair[0] > pair[1]
        self._worsen(pair)

    def merge(self, other: Distribution) -> None:
        self.bins += other.bins
        self.bounds += other.bounds
        self.beyond += other.beyond
        self._worsen(other.worst)

    def _worsen(self, pair: tuple[float, float] | None) -> None:
        if pair is not None and (self.worst is None or ratio(pair) > ratio(self.worst)):
            self.worst = pair


class Model:
    """What the answers of one model add up to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.verdicts: Counter[str] = Counter()
        self.distributions = tuple(Distribution(figure) for figure in FIGURES)

    @property
    def responses(self) -> int:
        return self.verdicts.total()

    def add(self, entry: Entry) -> None:
        self.verdicts[entry.report.verdict] += 1
        for chunk in entry.chunks():
            for distribution, pair in zip(self.distributions, chunk.figures, strict=True):
                if pair is not None:
                    distribution.add(pair)

    def merge(self, other: Model) -> None:
        self.verdicts += other.verdicts
        for mine, theirs in zip(self.distributions, other.distributions, strict=True):
            mine.merge(theirs)


class Models:
    """Takes entries, one by one."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def add(self, entry: Entry) -> None:
        name = entry.model or UNKNOWN
        if name not in self._models:
            self._models[name] = Model(name)
        self._models[name].add(entry)

    def __iter__(self) -> Iterator[Model]:
        """By name; of more than `MOST_MODELS` those with most answers, and the others as one."""
        largest = sorted(self._models.values(), key=lambda model: -model.responses)
        yield from sorted(largest[:MOST_MODELS], key=lambda model: model.name)
        if others := largest[MOST_MODELS:]:
            yield _merged(f"{len(others):,} others", others)


def _merged(name: str, models: Iterable[Model]) -> Model:
    together = Model(name)
    for model in models:
        together.merge(model)
    return together
