"""What vLLM reads and answers can be verified, however the request spells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc.report import Report

    Verify = Callable[[dict[str, Any]], Report]
    Recorded = Callable[[str], dict[str, Any]]

SPELLINGS: list[tuple[str, dict[str, Any]]] = [
    ("greedy-short", {"max_tokens": 512.0}),
    ("greedy-short", {"max_tokens": "512"}),
    ("greedy-short", {"n": 1.0}),
    ("greedy-short", {"temperature": "0"}),
    ("greedy-short", {"ignore_eos": 0}),
    ("greedy-short", {"echo": 0, "include_reasoning": "true"}),
    ("greedy-short", {"model": ""}),
    ("greedy-short", {"model": None}),
    ("greedy-short", {"metadata": {"title": "holiday \ud83d", "tags": ["\udc00"]}}),
    ("greedy-short", {"truncate_prompt_tokens": 4096}),
    ("completion", {"truncate_prompt_tokens": -1}),
]


@pytest.mark.parametrize(("name", "options"), SPELLINGS)
def test_spellings(verify: Verify, recorded: Recorded, name: str, options: dict[str, Any]) -> None:
    evidence = recorded(name)
    evidence["request"] |= options
    report = verify(evidence)
    assert report.accepted, str(report)


def test_token_ids_that_went_through_a_data_frame(verify: Verify, recorded: Recorded) -> None:
    evidence = recorded("completion-ids")
    evidence["request"]["prompt"] = [float(token) for token in evidence["request"]["prompt"]]
    assert verify(evidence).accepted


@pytest.mark.parametrize("name", ["chat-whole-floats", "completion-truncated-prompt"])
def test_recordings(verify: Verify, name: str) -> None:
    [path] = (Path(__file__).parents[1] / "evidence" / "routes").rglob(f"{name}.json")
    report = verify(json.loads(path.read_text("utf-8")))
    assert report.accepted, str(report)


def test_half_a_character_is_refused_where_it_is_read(verify: Verify, recorded: Recorded) -> None:
    evidence = recorded("greedy-short")
    evidence["response"]["choices"][0]["message"]["content"] += "\ud83d"
    report = verify(evidence)
    assert not report.accepted
    assert "response.choices[0].message.content" in str(report)


def test_a_seed_at_the_end_of_its_range(verify: Verify, recorded: Recorded) -> None:
    """vLLM draws choice i with the request's seed plus i, also beyond int64."""
    evidence = recorded("two-choices")
    evidence["request"]["seed"] = 2**63 - 1
    field = evidence["response"]["toploc_proofs"]
    field["sampler"] = "splitmix64"
    for choice in field["choices"]:
        choice["seed"] = 2**63 - 1 + choice["index"]
    report = verify(evidence)
    # These tokens were drawn otherwise; what counts is that the evidence is read, and the draws replayed.
    assert {check.reason for check in report.checks if check.name == "tokens"} == {"replay"}, str(report)
