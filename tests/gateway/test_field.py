"""The field is taken out, and no other byte changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toploc_gateway.field import Stripper, without
from toploc_gateway.incoming import with_fields

FIELD = '"toploc_proofs": {"a": ["}", "\\"toploc_proofs\\": 1"]}'
DOCUMENTS = {
    f'{{"a": 1, {FIELD}}}': '{"a": 1}',
    f'{{{FIELD}, "b" : 2 }}': '{"b" : 2 }',
    f'{{ "a":1 ,{FIELD} , "b":2}}': '{ "a":1  , "b":2}',
    f"{{{FIELD}}}": "{}",
    f'{{"response": {{"id": 1, {FIELD}}}, "x": "é"}}': '{"response": {"id": 1}, "x": "é"}',
    f'{{{FIELD}, "b": 1, {FIELD}}}': '{"b": 1}',
    f'{{"said": "\\"toploc_proofs\\"", {FIELD}}}': '{"said": "\\"toploc_proofs\\""}',
}


@pytest.mark.parametrize("before", DOCUMENTS)
def test_it_is_cut_out(before: str) -> None:
    assert without(before.encode()).decode() == DOCUMENTS[before]


@pytest.mark.parametrize(
    "junk", [b"", b"[]", b'{"toploc_proofs"', b'"toploc_proofs"', b'{"toploc_proofs": \xff}', b'{"toploc_proofs" 1}']
)
def test_what_is_no_object_stays(junk: bytes) -> None:
    assert without(junk) == junk


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_however_they_are_cut(end: str, size: int) -> None:
    events = [": hello", 'data: {"a": 1}', f'event: x\ndata: {{"a": 1, {FIELD}}}', "data: [DONE]"]
    stream = "".join(event + end for event in events).encode() + b"data: rest"
    stripper = Stripper()
    made = b"".join(stripper.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + stripper.flush()
    assert made == stream.replace(f", {FIELD}".encode(), b"")


TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4), st.integers(0, 5), st.booleans())
def test_any_object(value: dict[str, object], place: int, ascii_only: bool) -> None:
    value.pop("toploc_proofs", None)
    value.pop("response", None)
    names = list(value.items())
    names.insert(place, ("toploc_proofs", {"x": [1, "toploc_proofs"]}))
    text = json.dumps(dict(names), ensure_ascii=ascii_only)
    try:
        document = text.encode()
    except UnicodeEncodeError:  # half a character
        return
    assert json.loads(without(document)) == value
    assert json.loads(with_fields(document, {"seed": 5})) == {**dict(names), "seed": 5}
