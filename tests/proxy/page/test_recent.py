"""Who sees what of recent verifications."""

from __future__ import annotations

import json
from typing import Any

import pytest
from recorded import RECORDED
from toploc_proxy.settings import Page, Settings
from toploc_proxy.verify.recent import COUNT, OTHER, SIZE, Verifications

from toploc.evidence.parse import read_evidence
from toploc.report import Check, Report

ITEM = json.loads(RECORDED["greedy"])
EVIDENCE = read_evidence(ITEM)
SAID = ITEM["response"]["choices"][0]["message"]["content"]
ID = ITEM["response"]["id"]
ASKED = ITEM["request"]["messages"][-1]["content"]
BOUNDS = {"mismatches": 17, "mantissa_mean": 2.0, "mantissa_median": 2.0}
CHUNK = {"mismatches": 31, "mantissa_mean": 1.5, "mantissa_median": 1, "bounds": BOUNDS, "passed": False}
REPORT = Report.of(
    [
        Check(
            name="proofs",
            status="failed",
            choice=0,
            reason="activations",
            message=f'chunk 0, "{SAID[:40]}"',
            details=(SAID,),
            figures={"chunks": [CHUNK], "text": SAID},
        )
    ],
    model="toploc-mini",
)
KEY = "Bearer alpha"
HERE = ("toploc-mini",)


def verifications(page: Page = Page.OWN, *, keyed: bool = True) -> Verifications:
    return Verifications(Settings(channel="/nowhere", page=page, keyed=keyed))


def added(made: Verifications, key: str = KEY, names: tuple[str, ...] = HERE, item: Any = ITEM) -> str:
    read = made.read(item, EVIDENCE, REPORT, names, 0.5, key)
    made.put(read)
    return read.id


def test_the_key_that_asked_sees_the_text() -> None:
    made = verifications()
    found = made.get(added(made), KEY)
    assert found is not None
    shown = json.loads(found)["answer"]
    assert json.loads(found)["report"] == REPORT.model_dump(mode="json")
    assert shown["id"] == ID
    assert shown["choices"][0]["text"] == SAID
    assert json.loads(shown["request"]) == ITEM["request"]


@pytest.mark.parametrize("key", ["Bearer beta", "Bearer alph", "Bearer ", "Bearer", "", "alpha", "Basic alpha"])
def test_others_see_figures_and_no_word(key: str) -> None:
    made = verifications()
    found = made.get(added(made), key)
    assert found is not None
    assert_no_text(found)
    assert json.loads(found).keys() == {"answer"}
    shown = json.loads(found)["answer"]
    assert (shown["verdict"], shown["reasons"], shown["worst"]) == (
        "rejected",
        ["proofs: activations"],
        "mismatches 31 of 17",
    )
    [choice] = shown["choices"]
    assert choice["shown"][0]["figures"][:3] == [[31, 17], [1.5, 2], [1, 2]]
    assert choice["tokens"] == len(EVIDENCE.answers[0].token_ids)


def assert_no_text(answer: bytes) -> None:
    text = json.dumps(json.loads(answer), ensure_ascii=False)
    for secret in (SAID[:12], ASKED[:12], ID):  # by the id its token ids could be fetched
        assert secret not in text


@pytest.mark.parametrize(
    ("page", "keyed", "key"),
    [
        (Page.FIGURES, True, KEY),
        (Page.OWN, False, KEY),  # everybody may ask, and SDKs send the same word where no key is needed
        (Page.OWN, True, ""),
        (Page.OWN, True, "Bearer "),
    ],
)
def test_text_that_nobody_may_see_is_not_kept(page: Page, keyed: bool, key: str) -> None:
    made = verifications(page, keyed=keyed)
    found = made.get(added(made, key), key)
    assert found is not None
    assert_no_text(found)
    [kept] = made.newest(10)
    assert (kept.whole, kept.owner) == (None, b"")


def test_a_list_has_no_names_that_are_not_served() -> None:
    made = verifications()
    added(made, names=("another",))
    added(made)
    assert [one.model for one in made.newest(10)] == ["toploc-mini", OTHER]
    assert sorted(made.totals) == [OTHER, "toploc-mini"]
    listed = [one.listed() for one in made.newest(10)]
    assert_no_text(json.dumps(listed).encode())
    assert listed[0]["reason"] == "proofs: activations"
    assert listed[0]["tokens"] == EVIDENCE.answers[0].prompt.num_tokens + len(EVIDENCE.answers[0].token_ids)


def test_the_oldest_go() -> None:
    made = verifications()
    first = added(made)
    for _ in range(COUNT):
        added(made)
    assert made.get(first, KEY) is None
    assert len(list(made.newest(2 * COUNT))) == COUNT
    assert made.totals["toploc-mini"].verdicts["rejected"] == COUNT + 1


def test_long_ones_go_sooner() -> None:
    made = verifications()
    long = {**ITEM, "request": {**ITEM["request"], "user": "x" * 2**20}}
    for _ in range(SIZE // 90_000 + 10):
        added(made, item=long)
    kept = list(made.newest(COUNT))
    assert len(kept) < COUNT
    assert sum(one.size for one in kept) <= SIZE


def test_how_long_they_took() -> None:
    made = verifications()
    assert made.totals == {}
    for seconds in range(100):
        made.put(made.read(ITEM, EVIDENCE, REPORT, HERE, float(seconds), KEY))
    total = made.totals["toploc-mini"]
    assert (total.quantile(0.5), total.quantile(0.95), total.seconds) == (50, 95, 4950)
