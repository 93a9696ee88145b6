"""The verdict that follows from checks, and what a report looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from toploc.foreign import quote
from toploc.report import Check, Report, malformed


def check(name: str, status: str = "passed", choice: int | None = None, **fields: Any) -> Check:
    return Check.model_validate({"name": name, "status": status, "choice": choice, "message": "…", **fields})


REQUIRED = [check("model"), check("prompt", choice=0), check("proofs", choice=0), check("response")]


def test_accepted_with_what_is_required() -> None:
    assert Report.of(REQUIRED).verdict == "accepted"
    assert Report.of([*REQUIRED, check("tokens", "skipped", 0), check("text", choice=0)]).accepted


@pytest.mark.parametrize("missing", range(4))
@pytest.mark.parametrize("status", [None, "skipped", "undecided"])
def test_not_accepted_without(missing: int, status: str | None) -> None:
    checks = list(REQUIRED)
    gone = checks.pop(missing)
    if status:
        checks.append(gone.model_copy(update={"status": status}))
    assert Report.of(checks).verdict == "undecided"


def test_every_choice_needs_its_own() -> None:
    other = check("prompt", choice=1)
    assert Report.of([*REQUIRED, other]).verdict == "undecided"
    assert Report.of([*REQUIRED, other, check("proofs", choice=1)]).verdict == "accepted"
    assert Report.of([*REQUIRED, check("text", choice=1)]).verdict == "undecided"


def test_nothing_checked_is_not_accepted() -> None:
    assert Report.of([]).verdict == "undecided"
    assert Report.of([check("model")]).verdict == "undecided"
    assert Report.of([c.model_copy(update={"status": "skipped"}) for c in REQUIRED]).verdict == "undecided"


def test_a_failure_outweighs_an_error() -> None:
    assert Report.of([*REQUIRED, check("text", "failed", 0)]).verdict == "rejected"
    assert Report.of([*REQUIRED, check("tokens", "undecided", 0)]).verdict == "undecided"
    assert Report.of([check("proofs", "undecided"), check("text", "failed", 0)]).verdict == "rejected"


def test_malformed() -> None:
    report = malformed("malformed", "request: missing")
    assert (report.verdict, report.checks[0].name, report.checks[0].status) == ("undecided", "evidence", "undecided")


def test_json_and_back() -> None:
    report = Report.of([*REQUIRED, check("text", "failed", 0, reason="text_differs", figures={"at": [1, 2.5, None]})])
    text = report.model_dump_json()
    assert json.loads(text)["version"] == 2
    assert Report.model_validate_json(text) == report


def test_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        Report.of(REQUIRED).verdict = "accepted"
    with pytest.raises(ValidationError):
        check("model", "fine")
    with pytest.raises(ValidationError):
        check("vibes")


def test_readable() -> None:
    text = str(Report.of([*REQUIRED, check("text", "failed", 0, reason="text_differs")], model="mini"))
    assert text.splitlines()[0] == "REJECTED  mini"
    assert text.splitlines()[1] == "  failed    text of choice 0: … (text_differs)"


def test_what_has_to_be_acted_on_comes_first() -> None:
    checks = [*REQUIRED, check("receipt", "skipped", reason="no_receipt"), check("tokens", "weak", 0)]
    checks += [check("proofs", "failed", 1, details=("chunk 0: …", "chunk 1: …")), check("text", "undecided", 1)]
    lines = str(Report.of(checks, model="mini")).splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "failed",
        "chunk",
        "chunk",
        "undecided",
        "weak",
        "skipped",
        *["passed"] * 4,
    ]


def test_coverage_is_one_line() -> None:
    report = Report.of([*REQUIRED, check("receipt", "skipped", reason="no_receipt"), check("tokens", "weak", 0)])
    checked = "checked: model, prompt, proofs, response"
    assert report.coverage == f"{checked}; weakly: tokens; not checked: receipt (no_receipt)"


def test_version_1_is_read() -> None:
    checks = [{"name": "proofs", "status": "error", "reason": "dtype", "message": "…"}]
    report = Report.model_validate({"version": 1, "verdict": "error", "checks": checks})
    assert (report.verdict, report.checks[0].status, report.version) == ("undecided", "undecided", 1)


@pytest.mark.parametrize(
    ("field", "message", "verdict"),
    [
        ("response.toploc_proofs.choices[0].proofs[1]", "expected text, got 5", "rejected"),
        ("response.toploc_proofs", "missing: the answer carries no proofs", "undecided"),
        ("request.messages", "expected a list, got 5", "undecided"),
        ("response.choices", "expected a list, got 5", "undecided"),
    ],
)
def test_malformed_proofs_accuse_and_nothing_else_does(field: str, message: str, verdict: str) -> None:
    report = malformed("malformed", message, field)
    assert report.verdict == verdict
    assert str(report).startswith(f"{verdict.upper()}  no evidence")


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nb", "\u202eabc", "\x9b1m"])
def test_foreign_text_cannot_move_the_cursor(hostile: str) -> None:
    shown = [str(check("model", message=hostile)), str(check("model", details=(hostile,))).replace("\n", "")]
    for text in (quote(hostile), *shown, str(Report.of([], model=hostile))):
        assert text.isprintable()


def test_quotes_are_short() -> None:
    assert quote("Paris") == '"Paris"'
    assert len(quote("x" * 1000)) == 42
