from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toploc_proxy.asgi.sse import EventSplitter, add_field, add_field_within, event_json

VALUE = b'{"version":1}'
# What stands in and around events, so that random joins of it are likely to surprise.
PIECES = [
    b"data: ",
    b'{"choices":[]}',
    b"[DONE]",
    b": keep-alive",
    b"event: response.completed",
    "Grüße 🙂".encode(),
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r",
    b"\xff\xfe",
]
STREAMS = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(["response", 'a"response":', '"response', "type", "ключ"])
TEXTS = st.sampled_from(['"response": {', "response", '{"response":{}}', "\\", "}", "a\u2028b"])
OBJECTS = st.dictionaries(KEYS | st.text(max_size=5), JSON | TEXTS, max_size=4)
LAYOUTS = st.sampled_from(
    [{"separators": (",", ":")}, {}, {"indent": 2}, {"separators": (" ,\t", "\n: ")}, {"ensure_ascii": False}]
)


def split(stream: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    borders = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    splitter = EventSplitter()
    events = [event for a, b in pairwise(borders) for event in splitter.feed(stream[a:b])]
    return events, splitter.flush()


@given(STREAMS, st.lists(st.integers(0, 200), max_size=12))
def test_division_into_messages_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    events, rest = split(stream, cuts)
    assert (events, rest) == split(stream, [])
    assert b"".join(events) + rest == stream


@given(STREAMS)
def test_bytes_one_by_one(stream: bytes) -> None:
    assert split(stream, list(range(len(stream)))) == split(stream, [])


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_come_out_as_soon_as_they_are_whole(newline: bytes) -> None:
    splitter = EventSplitter()
    keep_alive, data = b": keep-alive" + newline * 2, "data: {'text': 'é'}".encode() + newline * 2
    assert splitter.feed(keep_alive + data[:-1]) == [keep_alive]
    assert splitter.feed(data[-1:]) == [data]
    assert splitter.flush() == b""


def test_flush_gives_the_rest_once() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1") == []
    assert splitter.flush() == b"data: 1"
    assert splitter.flush() == b""


@pytest.mark.parametrize(
    ("event", "document"),
    [
        (b'data: {"a":1}\n\n', b'{"a":1}'),
        (b'data:{"a":1}\n\n', b'{"a":1}'),
        (b'data: {"a":1}\r\n\r\n', b'{"a":1}'),
        (b'event: response.completed\ndata: {"a":"data: {}"}\n\n', b'{"a":"data: {}"}'),
        (b': note\ndata: {"a":1}\nid: 7\n\n', b'{"a":1}'),
        (b"data: [DONE]\n\n", None),
        (b"data: [1]\n\n", None),
        (b": keep-alive\n\n", None),
        (b"data\n\n", None),
        (b"\n\n", None),
    ],
)
def test_event_json(event: bytes, document: bytes | None) -> None:
    assert event_json(event) == document


def assert_inserted(before: bytes, after: bytes, added: bytes) -> None:
    """`after` is `before` with `added`, and a comma where needed, at one place."""
    for insertion in (added, b"," + added):
        if len(after) == len(before) + len(insertion):
            places = range(len(before) + 1)
            assert any(before[:i] + insertion + before[i:] == after for i in places)
            return
    pytest.fail("more or less than the field was added")


@given(OBJECTS, LAYOUTS, st.sampled_from(["", " ", "\n", "\r\n\t"]))
def test_add_field_only_inserts(document: dict[str, object], layout: dict[str, object], around: str) -> None:
    before = (around + json.dumps(document, **layout) + around).encode()
    after = add_field(before, "toploc_proofs", VALUE)
    assert json.loads(after) == {**document, "toploc_proofs": json.loads(VALUE)}
    assert list(json.loads(after)) == [*document, "toploc_proofs"]
    assert_inserted(before, after, b'"toploc_proofs":' + VALUE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{}", b'{"x":1}'),
        (b"{ }\n", b'{"x":1 }\n'),
        (b'{"a": 1}', b'{"a": 1,"x":1}'),
        (b'{\n  "a": 1\n}\n', b'{\n  "a": 1,"x":1\n}\n'),
        (b'{"a":{}}', b'{"a":{},"x":1}'),
        (b'{"a":"{"}', b'{"a":"{","x":1}'),
    ],
)
def test_add_field_bytes(before: bytes, after: bytes) -> None:
    assert add_field(before, "x", b"1") == after


@pytest.mark.parametrize("document", [b"", b" ", b"[]", b"[{}]", b'"}"', b"1", b"}", b"null", b'[{"a":1}'])
def test_add_field_to_what_is_no_object(document: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        add_field(document, "x", b"1")


@given(OBJECTS, st.dictionaries(KEYS, JSON | TEXTS, max_size=3), st.integers(0, 4), LAYOUTS)
def test_add_field_within_only_inserts(
    outer: dict[str, object], response: dict[str, object], place: int, layout: dict[str, object]
) -> None:
    items = [(key, value) for key, value in outer.items() if key != "response"]
    items.insert(place, ("response", response))
    before = json.dumps(dict(items), **layout).encode()
    after = add_field_within(before, "response", "toploc_proofs", VALUE)
    expected = {**dict(items), "response": {**response, "toploc_proofs": json.loads(VALUE)}}
    assert json.loads(after) == expected
    assert list(json.loads(after)) == [key for key, _ in items]
    assert_inserted(before, after, b'"toploc_proofs":' + VALUE)


@pytest.mark.parametrize(
    "before",
    [
        b'{"error":{"response":{}},"response":{"a":1}}',
        b'{"\\"response":{},"response":{"a":1}}',
        b'{"text":"\\"response\\":{}","response":{"a":1}}',
    ],
)
def test_add_field_within_takes_the_outer_object(before: bytes) -> None:
    after = add_field_within(before, "response", "x", b"1")
    assert after == before.removesuffix(b'"a":1}}') + b'"a":1,"x":1}}'


@pytest.mark.parametrize(
    "document",
    [
        b"{}",
        b'{"response":1}',
        b'{"response":[]}',
        b'{"a":{"response":{}}}',
        b'{"a":"response"}',
        b'["response",{}]',
        b'{"response"',
        b'{"response":',
        b'{"a":1',
        b"{",
        b"",
        b'{"response":{"a":"\xff"}}',
    ],
)
def test_add_field_within_what_has_no_such_object(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        add_field_within(document, "response", "x", b"1")
