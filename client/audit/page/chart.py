"""A distribution as bars: what the page draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from toploc.page.figures import counted, number, of_bound

from .distributions import LAST, STEPS

if TYPE_CHECKING:
    from .distributions import Distribution

WIDTH: Final = 340
HEIGHT: Final = 120
"""Of the drawing without its labels, in its own units."""
ENDS: Final = (1.5, 2, 3, 4, 5, 6, 8)
"""Where the axis may end, in bounds."""
OVERFLOW: Final = 14
"""Width of the bar of what lies beyond the axis, and the gap before it."""
TITLES: Final = {
    "mismatches": "Mismatches of 128 points",
    "mantissa_mean": "Mantissa difference, mean",
    "mantissa_median": "Mantissa difference, median",
}
"""Of a chart, by the name of its figure."""


@dataclass(frozen=True, slots=True)
class Bar:
    """In units of the drawing, with the origin at the top left."""

    x: float
    y: float
    width: float
    height: float
    beyond: bool
    label: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Chunks, on a logarithmic scale, over a figure as a share of its bound; with one bound in the figure's units."""

    title: str
    chunks: int
    beyond: int
    worst: str
    bounds: str
    bound_at: float
    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT


def chart_of(distribution: Distribution) -> Chart:
    """Bars of a distribution that has chunks.

    1. The axis ends at the first of `ENDS` that holds every chunk within it.
    2. Bins are joined to bars that are wide enough to see; what lies beyond the axis has a bar of its own.
    3. Figures are in their own units where all chunks have one bound, and multiples of it elsewhere.
    """
    inside = [place for place in distribution.bins if place < LAST]
    furthest = (max(inside, default=0) + 1) / STEPS
    end = next(end for end in ENDS if end >= furthest)  # 1
    step = STEPS // 20 if end <= 2 else STEPS // 10  # 2
    counts: dict[int, int] = {}
    for place in inside:
        counts[place // step] = counts.get(place // step, 0) + distribution.bins[place]
    most = max([*counts.values(), distribution.bins[LAST], 1])
    only = next(iter(distribution.bounds)) if len(distribution.bounds) == 1 else None  # 3

    def spelled(share: float) -> str:
        return f"{share:.3g}\N{MULTIPLICATION SIGN}" if only is None else f"{share * only:.3g}"

    def high(count: int) -> float:
        return HEIGHT * math.log10(1 + count) / math.log10(1 + most)

    def bar(x: float, width: float, low: float, reach: str, count: int) -> Bar:
        return Bar(x, HEIGHT - high(count), width - 1, high(count), low >= 1, f"{reach}: {counted(count, 'chunk')}")

    span = WIDTH - 2 * OVERFLOW
    width = span * step / STEPS / end
    bars = []
    for place, count in sorted(counts.items()):
        low, top = place * step / STEPS, (place + 1) * step / STEPS
        reach = f"{'0' if place == 0 else 'above ' + spelled(low)} to {spelled(top)}"
        bars.append(bar(place * width + 0.5, width, low, reach, count))
    if count := distribution.bins[LAST]:
        bars.append(bar(WIDTH - OVERFLOW, OVERFLOW, LAST / STEPS, f"above {spelled(LAST / STEPS)}", count))
    stride = 0.25 if end <= 1.5 else 0.5 if end <= 3 else 1
    shares = [place * stride for place in range(int(end / stride) + 1)]
    return Chart(
        title=TITLES[distribution.name],
        chunks=distribution.chunks,
        beyond=distribution.beyond,
        worst=of_bound(distribution.worst),
        bounds=_bounds(distribution),
        bound_at=span / end,
        bars=tuple(bars),
        across=tuple(Tick(span * share / end, spelled(share)) for share in shares),
        up=tuple(Tick(HEIGHT - high(10**power), f"{10**power:,}") for power in range(int(math.log10(most)) + 1)),
    )


def _bounds(distribution: Distribution) -> str:
    """Short enough for one line, however many there are."""
    low, high = min(distribution.bounds), max(distribution.bounds)
    return f"bound {number(low)}" if low == high else f"bounds from {number(low)} to {number(high)}"
