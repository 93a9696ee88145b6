"""What several opinions make together."""

from __future__ import annotations

from itertools import product

import pytest
from toploc_client import Judgement, Opinion, Report

from toploc.report import Check

NAMES = ("model", "prompt", "proofs", "response")
ACCEPTED = Report.of([Check(name=name, status="passed", message="fine") for name in NAMES])  # type: ignore[arg-type]
REJECTED = Report.of([Check(name="proofs", status="failed", reason="activations", message="chunk 3")])
MALFORMED = Report.of([Check(name="proofs", status="undecided", reason="malformed_proof.count", message="one less")])
REPORTS = {"a": ACCEPTED, "r": REJECTED, "m": MALFORMED, "-": None}


def judge(rule: str, votes: str) -> Judgement:
    opinions = [
        Opinion(verifier=f"v{i}", report=REPORTS[vote], problem=None if REPORTS[vote] else "down")
        for i, vote in enumerate(votes)
    ]
    return Judgement.by(rule, opinions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "votes", "verdict", "open_"),
    [
        ("all", "a", "accepted", False),
        ("all", "r", "rejected", False),
        ("all", "m", "undecided", False),
        ("all", "-", "undecided", True),
        ("all", "aar", "rejected", False),
        ("all", "a-", "undecided", True),
        ("all", "-r", "rejected", False),
        ("all", "-m", "undecided", False),
        ("any", "rra", "accepted", False),
        ("any", "r-", "undecided", True),
        ("any", "rm", "rejected", False),
        ("majority", "aar", "accepted", False),
        ("majority", "ar", "rejected", False),
        ("majority", "aar-", "undecided", True),
        ("majority", "arr-", "rejected", False),
        ("majority", "a--", "undecided", True),
    ],
)
def test_rules(rule: str, votes: str, verdict: str, open_: bool) -> None:
    judgement = judge(rule, votes)
    assert (judgement.verdict, judgement.open) == (verdict, open_)
    assert judgement.checks


@pytest.mark.parametrize("rule", ["all", "any", "majority"])
def test_a_silent_verifier_never_decides(rule: str) -> None:
    """Undecided is what answers of the silent could still turn to accepted, and nothing else."""
    for votes in map("".join, product("arm-", repeat=3)):
        best, judgement = judge(rule, votes.replace("-", "a")), judge(rule, votes)
        assert judgement.open == (best.accepted and not judgement.accepted)
        if judgement.accepted:
            assert judge(rule, votes.replace("-", "r")).accepted


def test_receipts_veto() -> None:
    opinions = [Opinion(verifier="v", report=ACCEPTED)]
    for status, verdict in {"passed": "accepted", "failed": "rejected", "skipped": "rejected"}.items():
        check = Check(name="receipt", status=status, reason="no_receipt", message="none")  # type: ignore[arg-type]
        assert Judgement.by("any", opinions, [check]).verdict == verdict


def test_text() -> None:
    text = str(judge("majority", "aar"))
    assert text.startswith("ACCEPTED")
    assert "v2: rejected" in text
    assert "verifiers" not in str(judge("all", "a"))
    assert Judgement.model_validate_json(judge("any", "r-a").model_dump_json()) == judge("any", "r-a")
