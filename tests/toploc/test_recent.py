"""A store whose memory is bounded by a number, by a size, or by both."""

from __future__ import annotations

from toploc.recent import Recent


def there(recent: Recent[bytes], names: str) -> str:
    return "".join(name for name in names if recent.get(name) is not None)


def test_the_oldest_go_and_are_remembered() -> None:
    recent = Recent[bytes](count=2, remembered=1)
    for name in "abcd":
        recent.put(name, b"")
    assert there(recent, "abcd") == "cd"
    assert [recent.has_gone(name) for name in "abcd"] == [False, True, False, False]
    recent.put("b", b"anew")
    assert (there(recent, "abcd"), recent.has_gone("b"), recent.has_gone("c")) == ("bd", False, True)
    recent.forget("b")
    assert (recent.get("b"), recent.has_gone("b")) == (None, False)


def test_sizes_are_bounded_together() -> None:
    recent = Recent[bytes](size=10, measure=len)
    recent.put("a", b"12345")
    recent.put("b", b"12345")
    assert there(recent, "ab") == "ab"
    recent.put("a", b"1")  # in place of the other, and the newest
    recent.put("c", b"1234")
    assert there(recent, "abc") == "abc"
    recent.put("d", b"1")
    assert there(recent, "abcd") == "acd"
    recent.put("e", b"12345678901")
    assert there(recent, "abcde") == ""
