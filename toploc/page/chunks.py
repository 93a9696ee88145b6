"""The figures of chunks, as reports have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..report import Report

FIGURES: Final = ("mismatches", "mantissa_mean", "mantissa_median")
"""Of a chunk, as reports name them."""

Pair = tuple[float, float]
"""A figure and its bound."""


@dataclass(frozen=True, slots=True)
class ChunkFigures:
    """What the report says of one chunk: each of `FIGURES` with its bound, None where it gives none."""

    figures: tuple[Pair | None, ...]
    passed: bool
    raw: dict[str, Any]

    @property
    def with_decoys(self) -> tuple[Pair | None, ...]:
        """The figures, then the hits of decoys with their bound."""
        bounds = self.raw.get("bounds")
        return (*self.figures, _pair(self.raw.get("decoy_hits"), _member(bounds, "decoy_hits")))


def chunks_of(report: Report, choice: int | None = None) -> Iterator[ChunkFigures]:
    """Of one choice, or of all."""
    for check in report.checks:
        listed = check.figures.get("chunks") if check.name == "proofs" else None
        if isinstance(listed, list) and (choice is None or check.choice == choice):
            yield from (_chunk(item) for item in listed if isinstance(item, dict))


def _chunk(item: dict[str, Any]) -> ChunkFigures:
    bounds = item.get("bounds")
    figures = tuple(_pair(item.get(name), _member(bounds, name)) for name in FIGURES)
    return ChunkFigures(figures, item.get("passed") is True, item)


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _pair(figure: object, bound: object) -> Pair | None:
    if isinstance(figure, int | float) and isinstance(bound, int | float) and figure >= 0 and bound >= 0:
        return float(figure), float(bound)
    return None
