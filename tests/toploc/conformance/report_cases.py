"""Reports whose verdict follows from their checks, by each rule of `Report.of`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIRED = ("model", "prompt", "proofs", "response")


def checks(*changes: tuple[str, str, int | None], without: str = "") -> list[dict[str, Any]]:
    """The required checks, passed, with others beside them."""
    named = [(name, "passed", None) for name in REQUIRED if name != without]
    return [
        {"name": name, "status": status, "choice": choice, "message": "", "reason": None}
        for name, status, choice in (*named, *changes)
    ]


CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "all-passed": (checks(), "accepted"),
    "no-checks": ([], "undecided"),
    "failed": (checks(("text", "failed", 0)), "rejected"),
    "undecided": (checks(("tokens", "undecided", 0)), "undecided"),
    "failed-and-undecided": (checks(("tokens", "undecided", 0), ("text", "failed", 0)), "rejected"),
    "weak-counts-as-passed": (checks(("response", "weak", None), without="response"), "accepted"),
    "optional-skipped": (checks(("receipt", "skipped", None)), "accepted"),
    "optional-weak": (checks(("tokens", "weak", 0)), "accepted"),
    **{f"{name}-missing": (checks(without=name), "undecided") for name in REQUIRED},
    **{f"{name}-skipped": (checks((name, "skipped", None), without=name), "undecided") for name in REQUIRED},
    "required-of-every-choice": (
        checks(("proofs", "passed", 0), ("proofs", "passed", 1), without="proofs"),
        "accepted",
    ),
    "required-of-one-choice-of-two": (
        checks(("proofs", "passed", 0), ("text", "passed", 1), without="proofs"),
        "undecided",
    ),
    "required-skipped-of-one-choice": (
        checks(("proofs", "passed", 0), ("proofs", "skipped", 1), without="proofs"),
        "undecided",
    ),
    "failed-though-nothing-else": ([checks(("proofs", "failed", 0))[-1]], "rejected"),
}


def report_cases() -> Iterator[tuple[str, str, Any, Any]]:
    for name, (done, verdict) in CASES.items():
        yield name, "report", {"checks": done}, {"verdict": verdict}
    whole = {"version": 2, "verdict": "accepted", "model": "m", "coverage": "", "checks": checks()}
    in_error = [*checks(), {"name": "tokens", "status": "error", "message": "", "reason": "unavailable"}]
    for name, value, answer in (
        ("whole", whole, {"verdict": "accepted"}),
        ("version-1", {**whole, "version": 1, "verdict": "error", "checks": in_error}, {"verdict": "undecided"}),
        ("version-1-rejected", {**whole, "version": 1, "verdict": "rejected"}, {"verdict": "rejected"}),
        ("version-3", {**whole, "version": 3}, {"malformed": True}),
        ("version-2-in-error", {**whole, "verdict": "error"}, {"malformed": True}),
        ("verdict-unknown", {**whole, "verdict": "fine"}, {"malformed": True}),
        ("status-unknown", {**whole, "checks": [{**checks()[0], "status": "ok"}]}, {"malformed": True}),
        ("check-unknown", {**whole, "checks": [{**checks()[0], "name": "mood"}]}, {"malformed": True}),
        ("choice-negative", {**whole, "checks": [{**checks()[0], "choice": -1}]}, {"malformed": True}),
        ("field-unknown", {**whole, "extra": 1}, {"malformed": True}),
        ("no-checks-field", {key: whole[key] for key in whole if key != "checks"}, {"malformed": True}),
    ):
        yield name, "report", {"report": value}, answer
