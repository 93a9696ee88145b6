"""The prompt's check, where the chat template does not render the same at all times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from toploc.checks.prompt import reads_clock
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc.report import Check
    from toploc.verifier.prefill import TransformersPrefill

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{ strftime_now("%H:%M") }}', True),
        ("{{ datetime.now() }}", True),
        ({"default": "{{ messages }}", "tool_use": '{{ strftime_now("%d") }}'}, True),
        ("{{ messages }} You know this now.", False),
        (None, False),
    ],
)
def test_templates_that_read_the_clock(template: object, expected: bool) -> None:
    assert reads_clock(template) is expected


def test_another_time_accuses_nobody(
    prefill: TransformersPrefill, recorded: Recorded, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prover answered a minute ago; here the template writes another time."""
    dated = prefill.tokenizer.chat_template + '{{- strftime_now("%S %M %H %f") -}}'
    monkeypatch.setattr(prefill.tokenizer, "chat_template", dated)
    verifier = TransformersVerifier(prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))
    report = verifier.verify(json.dumps(recorded("greedy-short")))
    assert (report.verdict, find(report, "prompt").reason) == ("undecided", "clock"), str(report)
    assert not [check for check in report.checks if check.status == "failed"]
