"""The prompt's check: its media, and chat templates that do not render the same at all times."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from toploc.checks.prompt import check_prompt, reads_clock
from toploc.evidence.evidence import Answer
from toploc.evidence.media import Carried
from toploc.protocol import ChoiceProofs, Media, PromptDigest
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


IMAGES = [base64.b64encode(name.encode()).decode() for name in ("first", "second")]
CARRYING = {"messages": [{"content": [{"image_url": {"url": f"data:image/png;base64,{data}"}} for data in IMAGES]}]}
FETCHING = {"messages": [{"content": [{"image_url": {"url": f"https://example.com/{n}"}} for n in (1, 2)]}]}
MIXED = {"messages": [{"content": [FETCHING["messages"][0]["content"][0], CARRYING["messages"][0]["content"][1]]}]}
PROMPT = list(range(20))


def media(*names: str, modality: str = "image", offset: int = 2, length: int = 4) -> list[Media]:
    return [
        Media(
            modality=modality,
            offset=offset + 8 * place,
            length=length,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
        )
        for place, name in enumerate(names)
    ]


OWN = media("first", "second")


@pytest.mark.parametrize(
    ("claimed", "request_body", "expected"),
    [
        (OWN, CARRYING, ("passed", None)),
        (OWN, FETCHING, ("passed", None)),
        (media("first", "third"), CARRYING, ("failed", "media_differ")),
        (media("second", "first"), CARRYING, ("failed", "media_differ")),
        (media("first"), CARRYING, ("failed", "media_differ")),
        ([], CARRYING, ("failed", "media_differ")),
        (media("first", "second", modality="video"), CARRYING, ("failed", "media_differ")),
        (media("first", "second", offset=3), CARRYING, ("failed", "media_differ")),
        (media("first", "second", length=3), FETCHING, ("failed", "media_differ")),
        (media("first", "third"), FETCHING, ("undecided", "media_changed")),
        ([], FETCHING, ("undecided", "media_changed")),
        (media("third", "second"), MIXED, ("undecided", "media_changed")),
        (media("first", "third"), MIXED, ("failed", "media_differ")),
        (media("third", "third"), MIXED, ("failed", "media_differ")),
    ],
)
@pytest.mark.parametrize("clock", [False, True])
def test_media(claimed: list[Media], request_body: dict[str, Any], expected: tuple[str, str], clock: bool) -> None:
    proofs = ChoiceProofs(index=0, token_ids=(1,), proofs=("",))
    answer = Answer(0, "", "stop", proofs, PromptDigest.of(PROMPT, media=claimed))
    check = check_prompt(answer, PROMPT, clock=clock, media=OWN, carried=Carried(request_body))
    same = [(one.modality, one.sha256) for one in claimed] == [(one.modality, one.sha256) for one in OWN]
    if clock and same and expected[0] == "failed":
        expected = ("undecided", "clock")
    assert (check.status, check.reason) == expected, check


def test_media_of_another_length_accuse_nobody_where_they_were_fetched() -> None:
    proofs = ChoiceProofs(index=0, token_ids=(1,), proofs=("",))
    answer = Answer(0, "", "stop", proofs, PromptDigest.of(PROMPT[:-1], media=media("third", "second", length=3)))
    check = check_prompt(answer, PROMPT, media=OWN, carried=Carried(MIXED))
    assert (check.status, check.reason) == ("undecided", "media_changed")


def test_media_that_the_request_does_not_have() -> None:
    proofs = ChoiceProofs(index=0, token_ids=(1,), proofs=("",))
    answer = Answer(0, "", "stop", proofs, PromptDigest.of(PROMPT, media=OWN))
    assert check_prompt(answer, PROMPT).reason == "media_differ"


def test_transformers_do_not_read_media(prefill: TransformersPrefill, recorded: Recorded, find: Find) -> None:
    verifier = TransformersVerifier(prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))
    evidence = recorded("greedy-short")
    evidence["response"]["toploc_proofs"]["prompt"]["media"] = [OWN[0].model_dump()]
    report = verifier.verify(json.dumps(evidence))
    assert (report.verdict, find(report, "prompt").reason) == ("undecided", "media"), str(report)
    assert not [check for check in report.checks if check.status == "failed"]
