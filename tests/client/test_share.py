"""The lottery: the numbers that the documents tell of, and the share that comes of them."""

from __future__ import annotations

from hashlib import sha256

import pytest
from toploc_client.share import chosen, lot


def test_the_lot_of_a_name_is_what_the_documents_say() -> None:
    assert lot("seed", "name") == int(sha256(b"seed:name").hexdigest()[:16], 16)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_so_many_are_chosen(share: float) -> None:
    """Within five standard deviations; none and all are exact."""
    names = [f"answer-{number}" for number in range(10_000)]
    count = sum(chosen(share, "seed", name) for name in names)
    assert abs(count - share * len(names)) <= 5 * (share * (1 - share) * len(names)) ** 0.5


def test_another_seed_chooses_others() -> None:
    names = [f"answer-{number}" for number in range(1000)]
    assert [chosen(0.5, "a", name) for name in names] != [chosen(0.5, "b", name) for name in names]
    assert all(chosen(0.5, "a", name) for name in names if chosen(0.1, "a", name))
