"""The likeliest tokens of a place: a list that another engine made is one of the verifier's, up to noise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from toploc.evidence.alternatives import MASKED, MORE, agree, entries_of, marked, ranks_fit, with_masked

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


@pytest.mark.parametrize("is_list", [True, False])
def test_lists_of_the_likeliest_alone(is_list: bool) -> None:
    """As an engine makes them that does not put the chosen token first, nor on top of them."""

    def accepted(*names: str, **logprobs: float) -> bool:
        claimed = listed(*names, **logprobs)
        return agree(claimed, LIKELY, 3, MARGIN, is_list=is_list, chosen_first=False) is not None

    assert accepted("t0", "t1", "t2")
    assert accepted("t1", "t0", "t2", t0=-1.3, t1=-1.2)
    assert accepted("t0", "t1", "t3", t3=-2.1)
    assert not accepted("t0", "t1")
    assert not accepted("t0", "t1", "t2", "t3")
    assert not accepted("t0", "t1", "t4", t4=-2.6)
    assert accepted("t2", "t1", "t0") is not is_list


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


def spelled(*places: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in places]


@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize(
    ("others", "same"),
    [
        (["x", "y"], True),
        (["v", "w"], True),  # others that the grammar masks too
        (["x", "w"], True),
        (["drink this", "x"], None),
        (["x"], False),
        (["b", "x"], None),  # which is left, and of one token
    ],
)
def test_tokens_that_a_grammar_masks_are_equal(is_list: bool, others: list[str], same: bool | None) -> None:
    rehearsed = [("a", -0.5), ("b", -0.9), *((token, MASKED) for token in "xyz")]
    claimed = [("a", -0.5), ("b", -0.9), *((token, MASKED) for token in others)]
    if not is_list and others == ["b", "x"]:
        return  # an object has a text once
    place, own = (spelled(*one) if is_list else dict(one) for one in (claimed, rehearsed))
    left, right = entries_of(place), entries_of(own)
    assert left is not None
    assert right is not None
    longer = with_masked(left, right, "abvwxyz".count)
    assert (longer is None) == (same is None)
    if longer is not None:
        # Of an object, in which masked tokens may share a text, fewer may be listed.
        found = agree(left, longer, 4, MARGIN, is_list=is_list) is not None
        assert found == (same or (not is_list and others == ["x"]))


def test_masked_tokens_of_one_text() -> None:
    """As parts of characters are: one of them may be left, and others not."""
    rehearsed = [("a", -0.5), ("\ufffd", -0.9), ("x", MASKED), ("y", MASKED)]
    claimed = [("a", -0.5), ("\ufffd", -0.9), ("\ufffd", MASKED), ("\ufffd", MASKED)]
    left, right = entries_of(spelled(*claimed)), entries_of(spelled(*rehearsed))
    assert left is not None
    assert right is not None
    longer = with_masked(left, right, lambda _: 3)
    assert longer is not None
    assert agree(left, longer, 4, MARGIN, is_list=True) is not None
    assert with_masked(left, right, lambda _: 2) is None


def test_masked_tokens_where_nothing_is_masked() -> None:
    """Then the verifier's list has tokens that are likelier, and left out."""
    claimed = [*listed("t0", "t1"), ("new", MASKED)]
    longer = with_masked(claimed, LIKELY, lambda _: 9)
    assert longer == LIKELY
    assert agree(claimed, longer, 3, MARGIN, is_list=True) is None


def test_bytes_of_a_masked_token_are_its_texts() -> None:
    rehearsed = entries_of(spelled(("a", -0.5), ("x", MASKED)))
    claimed = entries_of([{"token": "y", "logprob": MASKED, "bytes": [1]}])
    assert claimed is not None
    assert rehearsed is not None
    assert with_masked(claimed, rehearsed, lambda _: 9) is None
    assert json.loads(claimed[0][0])[1]["bytes"] == [1]


@pytest.mark.parametrize(
    ("rank", "logprob", "fits"),
    [
        (1, -1.0, True),
        (2, -1.2, True),
        (3, -1.0, False),
        (2, -3.0, False),
        (0, -1.0, False),
        (True, -1.0, False),
        (1.0, -1.0, False),
        (300, -9.0, True),
        (11, -9.0, False),
        (13_000, -9.0, True),
        (14_000, -9.0, False),
        (10**9, -1000.0, True),
    ],
)
def test_a_rank_that_a_token_can_have(rank: Any, logprob: float, fits: bool) -> None:
    likeliest = [one for _, one in LIKELY]
    place = {"5": {"logprob": logprob, "rank": rank}}
    assert ranks_fit(place, likeliest, MARGIN, of_one=True) is fits


def test_ranks_of_logits_and_of_nothing_else() -> None:
    assert ranks_fit([{"logprob": -1.0, "rank": 500}], (), MARGIN)
    assert not ranks_fit([{"logprob": -1.0, "rank": 500}], (), MARGIN, tokens=499)
    assert not ranks_fit([{"logprob": -1.0, "rank": 500}], (), MARGIN, of_one=True)
    assert ranks_fit([{"logprob": -1.0}, {"logprob": -1.0, "rank": None}], (), MARGIN, of_one=True)
