"""No honest answer of any route is accused by a verifier without an engine; what it cannot tell, it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc.report import Report

    Verify = Callable[[dict[str, Any]], Report]

ROUTES = {path.stem: path for path in (Path(__file__).parents[1] / "evidence" / "routes").rglob("*.json")}


@pytest.mark.parametrize("name", ROUTES)
def test_honest_answers(verify: Verify, name: str) -> None:
    report = verify(json.loads(ROUTES[name].read_bytes()))
    assert report.verdict != "rejected", str(report)
    if report.verdict == "undecided":
        assert {check.reason for check in report.checks if check.status == "undecided"} - {None}


def test_plain_answers_are_accepted(verify: Verify) -> None:
    """How many: of chats, batches and completions, all but those with parts that it cannot bind."""
    accepted = [name for name, path in ROUTES.items() if verify(json.loads(path.read_bytes())).accepted]
    assert len(accepted) >= 70
    assert {name.partition("-")[0] for name in accepted} == {"batch", "chat", "completion", "generate"}


@pytest.mark.parametrize("name", ["response-previous", "response-previous-stream"])
def test_what_was_said_before_is_not_left_out(verify: Verify, name: str) -> None:
    """Rendered without it, an honest answer would be rejected, and one that ignores it accepted."""
    report = verify(json.loads(ROUTES[name].read_bytes()))
    assert {check.reason for check in report.checks if check.name == "prompt"} == {"unrenderable"}
