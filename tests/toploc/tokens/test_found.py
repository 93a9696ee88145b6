"""What messages say that the check finds is what docs/evidence.md says that it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from toploc.tokens.found import FOUND, found_at

EVIDENCE = Path(__file__).parents[3] / "docs" / "evidence.md"
WRITERS = {
    "4-bit weights": "int4 weights",
    "a fine-tuned copy": "fine-tuned 20 steps",
    "greedy decoding": "the model, greedy",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_shares_are_those_of_the_table(writer: str) -> None:
    start = f"| temperature 1 | {WRITERS[writer]} | "
    # The first of two tables with such rows.
    line = next(line for line in EVIDENCE.read_text("utf-8").splitlines() if line.startswith(start))
    shares = [cell.strip() for cell in line.removeprefix(start).strip(" |").split("|")][1:]
    assert [float(share.removesuffix(" %")) for share in shares] == [row[writer] for row in FOUND.values()]


def test_the_most_tokens_below_count() -> None:
    assert found_at(127) == found_at(64) != found_at(128)
    assert "92.5 % by a fine-tuned copy" in found_at(64)
    assert "not measured" in found_at(7)
