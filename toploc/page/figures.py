"""Figures as tables and the page show them."""

from __future__ import annotations


def ratio(pair: tuple[float, float]) -> float:
    """A figure as a share of its bound."""
    figure, bound = pair
    if bound > 0:
        return figure / bound
    return 0.0 if figure == 0 else float("inf")


def of_bound(pair: tuple[float, float] | None) -> str:
    """A figure and its bound, as `36 of 12`."""
    return "-" if pair is None else f"{number(pair[0])} of {number(pair[1])}"


def counted(count: int, noun: str) -> str:
    """As `1 answer`, `2,000 answers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(figure: float) -> str:
    """A mean of 2^64 says that no exponent was equal."""
    return "none equal" if figure >= 2.0**63 else f"{figure:.3g}"
