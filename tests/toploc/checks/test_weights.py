"""Answers that say which weights made them: one version is checked as ever, several are never accepted nor accused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]

Spans = list[tuple[int, int, int]]


def claiming(evidence: dict[str, Any], spans: Spans) -> dict[str, Any]:
    for choice in evidence["response"]["toploc_proofs"]["choices"]:
        choice["weights"] = [dict(zip(("version", "start", "end"), span, strict=True)) for span in spans]
    return evidence


def length(evidence: dict[str, Any]) -> int:
    return len(evidence["response"]["toploc_proofs"]["choices"][0]["token_ids"])


@pytest.mark.parametrize("name", ["greedy", "sampled", "int4-greedy", "int4-sampled"])
@pytest.mark.parametrize("at", [0, 1, 32, 40])
def test_several_weights_are_undecided(verify: Verify, recorded: Recorded, find: Find, name: str, at: int) -> None:
    evidence = recorded(name)
    report = verify(claiming(evidence, [(0, 0, at), (1, at, length(evidence))]))
    check = find(report, "proofs")
    assert (report.verdict, check.reason) == ("undecided", "weights_changed"), str(report)
    chunks = check.figures["chunks"]
    assert isinstance(chunks, list)
    assert len(chunks) == at // 32
    assert all(chunk["passed"] is not name.startswith("int4") for chunk in chunks)  # type: ignore[index,call-overload]
    # Scores are of the verifier's weights alone.
    assert not [check for check in report.checks if check.name in ("tokens", "pooled")]


def test_what_has_nothing_to_do_with_weights_still_rejects(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = claiming(recorded("greedy"), [])
    n = length(evidence)
    claiming(evidence, [(3, 0, 32), (4, 32, n)])
    evidence["response"]["choices"][0]["message"]["content"] += " More."
    assert find(verify(evidence), "text").status == "failed"
    evidence = claiming(recorded("greedy"), [(3, 0, 32), (4, 32, n)])
    evidence["response"]["toploc_proofs"]["choices"][0]["proofs"][-1] = "AAAA"
    report = verify(evidence)
    assert (report.verdict, find(report, "proofs").status) == ("rejected", "failed")
    evidence = claiming(recorded("greedy"), [(3, 0, 32), (4, 32, n)])
    evidence["response"]["toploc_proofs"]["prompt"]["sha256"] = "0" * 64
    assert verify(evidence).verdict == "rejected"


@pytest.mark.parametrize(("name", "verdict"), [("greedy", "accepted"), ("int4-greedy", "rejected")])
def test_one_version_is_no_excuse(verify: Verify, recorded: Recorded, name: str, verdict: str) -> None:
    evidence = recorded(name)
    assert verify(claiming(evidence, [(7, 0, length(evidence))])).verdict == verdict


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [(0, 0, 1)],
        [(0, 1, None)],
        [(0, 0, 32), (1, 33, None)],
        [(0, 0, 33), (1, 32, None)],
        [(1, 0, 32), (0, 32, None)],
        [(1, 0, 32), (1, 32, None)],
        [(0, 0, None), (1, None, 0)],
        [(-1, 0, None)],
    ],
)
def test_spans_that_are_none(
    verify: Verify, recorded: Recorded, spans: list[tuple[int, int | None, int | None]]
) -> None:
    evidence = recorded("greedy")
    n = length(evidence)
    made = [(version, n if start is None else start, n if end is None else end) for version, start, end in spans]
    report = verify(claiming(evidence, made))
    assert (report.verdict, [check.name for check in report.checks]) == ("rejected", ["evidence"])


def test_choices_of_several_weights_are_not_compared(verify: Verify, recorded: Recorded) -> None:
    """Equal choices accuse by what the verifier's own weights would draw."""
    evidence = recorded("two-choices")
    field, choices = evidence["response"]["toploc_proofs"]["choices"], evidence["response"]["choices"]
    for kept in ("token_ids", "proofs"):
        field[1][kept] = field[0][kept]
    choices[1]["message"]["content"] = choices[0]["message"]["content"]
    n = length(evidence)
    report = verify(claiming(evidence, [(0, 0, 1), (1, 1, n)]))
    assert report.verdict == "undecided", str(report)
