"""What a fleet pays follows from figures that stand in the pages named, and the document has what follows."""

from __future__ import annotations

import re
from pathlib import Path

import fleet
import measured
import pytest

ROOT = Path(__file__).parents[2]


def figures() -> list[measured.Figure]:
    found = [value for value in vars(measured).values() if isinstance(value, measured.Figure)]
    return [*found, *measured.SCORES.values(), *(one for row in measured.ALARMS for one in (row.whole, row.tenth))]


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: f"{figure.page}-{figure.value:g}")
def test_figures_stand_in_their_pages(figure: measured.Figure) -> None:
    assert figure.quote in (ROOT / figure.page).read_text("utf-8")
    numbers = re.findall(r"([\d,]*\d(?:\.\d+)?(?:e-?\d+)?)( %)?", figure.quote)
    assert figure.value in [float(text.replace(",", "")) / (100 if percent else 1) for text, percent in numbers]


@pytest.mark.parametrize("name", fleet.tables())
def test_the_document_has_the_tables(name: str) -> None:
    assert fleet.tables()[name] in (ROOT / "docs" / "operations.md").read_text("utf-8")


def test_arithmetic_by_hand() -> None:
    """16 proofs of 344 characters, two quotes and a comma; 256 prefills in 4.9978 s and 1.5 ms of scores."""
    assert fleet.PROOF_IN_JSON * fleet.CHUNKS == 16 * 347
    assert fleet.verified("greedy") == pytest.approx(0.019522656 + 0.0015)
    assert fleet.verified("greedy") / fleet.GENERATED == pytest.approx(0.66279, rel=1e-4)
