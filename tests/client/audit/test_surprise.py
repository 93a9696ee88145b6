"""Sampled answers of which none shows anything raise an alarm together, whatever a verifier says of the figures."""

from __future__ import annotations

from typing import Any

import pytest
from toploc_client.audit.entry import entry_of
from toploc_client.audit.surprise import MOST_MODELS, Surprises
from toploc_client.audit.table import Table

from toploc.report import Check, Report

RATIOS = {"0.1": 0.2, "-1": -0.5}


def report_with(log_ratios: object, model: str = "m") -> Report:
    check = {"name": "tokens", "status": "weak", "choice": 0, "reason": "unseeded", "message": ""}
    return Report.of([Check.model_validate({**check, "figures": {"log_ratios": log_ratios}})], model=model)


def added(surprises: Any, count: int, ratios: object) -> None:
    for line in range(1, count + 1):
        surprises.add(entry_of(line, 0, "", b"", report_with(ratios)))


def test_an_alarm_stands_above_the_table() -> None:
    table = Table()
    added(table, 60, RATIOS)
    assert table.surprises.raised
    assert (
        str(table)
        .splitlines()[0]
        .startswith(
            "surprise pooled over answers: m: ALARM in 60 sampled answers, at answer 60, line 60; the sum reached"
        )
    )
    [said] = table.to_json()["surprises"]
    assert (said["answers"], said["alarm"], said["line"], said["false_alarm"]) == (60, 60, 60, 0.01)
    assert said["highest"] >= said["threshold"]


def test_none_stands_below_it() -> None:
    table = Table()
    added(table, 60, {"0.1": 0.0, "-1": -0.5})
    assert not table.surprises.raised
    assert "surprise pooled over answers: m: no alarm in 60 sampled answers" in str(table).splitlines()[-1]


@pytest.mark.parametrize(
    "ratios", [None, 3, {}, {"0.1": "7", "-1": 1.0}, {"0.1": 7.0}, {"0.1": 7.0, "-2": 1.0}, {"0.1": [7.0], "-1": 1.0}]
)
def test_what_a_verifier_may_say_of_the_figures(ratios: object) -> None:
    surprises = Surprises()
    added(surprises, 1, RATIOS)
    added(surprises, 99, ratios)
    assert not surprises.raised
    assert [one.test.answers for one in surprises] == [1]


def test_models_are_bounded() -> None:
    surprises = Surprises()
    for number in range(3 * MOST_MODELS):
        surprises.add(entry_of(number, 0, "", b"", report_with(RATIOS, f"m{number}")))
    assert len([*surprises]) == MOST_MODELS
