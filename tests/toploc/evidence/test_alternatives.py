"""The likeliest tokens of a place: a list that another engine made is one of the verifier's, up to noise."""

from __future__ import annotations

from typing import Any

import pytest

from toploc.evidence.alternatives import MORE, agree, entries_of, marked

MARGIN = 0.5
# The chosen token, then the likeliest: half a nat apart, so that neighbours may change places.
LIKELY = [("t0", -1.0), *((f"t{i}", -1.0 - i / 2) for i in range(1, 3 + MORE))]
UNLIKELY = [("odd", -9.0), *LIKELY]


def listed(*names: str, **logprobs: float) -> list[tuple[str, float]]:
    known = {**dict(UNLIKELY), **logprobs}
    return [(name, known[name]) for name in names]


@pytest.mark.parametrize(
    "claimed",
    [listed("t0", "t1", "t2"), listed("t0", "t1", "t3", t3=-2.1), listed("t0", "t2", "t1", t2=-1.6, t1=-1.8)],
    ids=["the same", "another at the border", "in another order"],
)
def test_a_list_that_noise_may_have_made(claimed: Any) -> None:
    assert agree(claimed, LIKELY, 3, MARGIN, is_list=True) is not None


@pytest.mark.parametrize(
    "claimed",
    [
        listed("t0", "t1", "new", new=-2.0),
        listed("t0", "t1", "t2", t2=-1.4),
        listed("t0", "t1", "t1"),
        listed("t0", "t1"),
        listed("t0", "t1", "t2", "t3"),
        listed("t1", "t0", "t2"),
        listed("t0", "t2", "t1"),
        listed("t0", "t1", "t4", t4=-2.6),
    ],
    ids=[
        "no such token",
        "likelier",
        "twice",
        "one less",
        "one more",
        "another first",
        "not sorted",
        "one passed over",
    ],
)
def test_a_list_that_is_none_of_the_models(claimed: Any) -> None:
    assert agree(claimed, LIKELY, 3, MARGIN, is_list=True) is None


def test_a_list_without_order_has_the_chosen_token_on_top() -> None:
    def accepted(*names: str, of: Any = UNLIKELY, **logprobs: float) -> bool:
        return agree(listed(*names, **logprobs), of, 3, MARGIN, is_list=False) is not None

    assert accepted("t2", "t1", "odd", "t0")
    assert not accepted("t0", "t1", "odd")
    assert not accepted("t0", "t1", "t2")
    assert not accepted("t0", "t1", "t2", "t3", "odd")
    assert accepted("t0", "t1", "t2", of=LIKELY)
    assert not accepted("t0", "t1", of=LIKELY)


def test_noise_is_what_the_two_differ_by() -> None:
    noise = agree(listed("t0", "t1", "t2", t1=-1.6), LIKELY, 3, MARGIN, is_list=True)
    assert noise == pytest.approx([0, 0.1, 0])


def test_of_two_tokens_with_one_text_a_list_by_text_has_one() -> None:
    doubled = [*LIKELY[:2], ("t1", -2.0), *LIKELY[3:]]
    for logprob in (-1.5, -2.0):
        assert agree(listed("t0", "t1", t1=logprob), doubled, 3, MARGIN, is_list=False) is not None
    assert agree(listed("t0", "t1", t1=-0.5), doubled, 3, MARGIN, is_list=False) is None
    assert agree([("t0", -1.0), ("t1", -1.5), ("t1", -2.0)], doubled, 3, MARGIN, is_list=True) is not None


def test_entries() -> None:
    chat = [{"token": "a", "bytes": [97], "logprob": -1}, {"token": "b", "bytes": None, "logprob": -2.5}]
    found = entries_of(chat)
    assert found is not None
    assert [logprob for _, logprob in found] == [-1.0, -2.5]
    assert found[0][0] != found[1][0]
    assert entries_of({"a": -1.0}) == [('["a", {}]', -1.0)]
    by_text = {"a": -1.0, marked("a", 1): -2.0, marked("", 2): -3.0}
    assert entries_of(by_text, has_marks=True) == [('["a", {}]', -1.0), ('["a", {}]', -2.0), ('["", {}]', -3.0)]
    assert entries_of({marked("a", 1): -1.0}) != entries_of({"a": -1.0})
    ranked = entries_of({"5": {"logprob": -1.0, "rank": 2, "decoded_token": "a"}})
    assert ranked == entries_of({"5": {"logprob": -1.0, "rank": 3, "decoded_token": "a"}})
    assert ranked != entries_of({"5": {"logprob": -1.0, "rank": 2, "decoded_token": "b"}})


@pytest.mark.parametrize("junk", [{"a": "x"}, {"a": True}, [{"token": "a"}], ["a"], [{"logprob": None}]])
def test_what_is_no_list_of_tokens(junk: Any) -> None:
    assert entries_of(junk) is None
