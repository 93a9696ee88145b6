"""Requests that are kept for responses that are fetched later."""

from __future__ import annotations

from toploc_client.asked import Asked


def test_the_last_ones_are_kept() -> None:
    asked = Asked(limit=3, max_bytes=10)
    for number in range(5):
        asked.keep(str(number), b"xx")
    assert [asked.get(str(number)) for number in range(5)] == [None, None, b"xx", b"xx", b"xx"]
    asked.keep("long", b"x" * 7)
    assert [asked.get(name) for name in ("3", "4", "long")] == [None, b"xx", b"x" * 7]
    asked.keep("longer", b"x" * 11)
    assert [asked.get(name) for name in ("4", "long", "longer")] == [None] * 3
    asked.keep("a", b"x" * 10)
    assert asked.get("a") == b"x" * 10


def test_an_id_of_two_requests_is_of_neither() -> None:
    asked = Asked(max_bytes=10)
    asked.keep("a", b"one")
    asked.keep("a", b"one")
    assert asked.get("a") == b"one"
    asked.keep("a", b"another")
    assert asked.get("a") == b""
    asked.keep("a", b"one")
    assert asked.get("a") == b""
    asked.keep("b", b"x" * 10)
    assert asked.get("b") == b"x" * 10
