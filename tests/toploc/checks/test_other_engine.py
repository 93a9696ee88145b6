"""Answers of SGLang before a verifier that follows vLLM's rules: held by what both do alike, and accused by no more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, decoders, models

from toploc.checks.response import Rehearsed, check_response
from toploc.checks.text import check_text
from toploc.evidence.forms import Forms
from toploc.evidence.leaves import compare
from toploc.evidence.parse import read_evidence
from toploc.thresholds.tokens import TokenBounds
from toploc.tokens.masks import Constraint, Forbidden
from toploc.tokens.sampling import Sampling
from toploc.verifier.kinds import constraint_of_another, ends_alike, renders_alike, reports_alike

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]

FOLDER = Path(__file__).parents[1] / "of_sglang"
RESPONSES = Path(__file__).parents[1] / "evidence" / "routes" / "tools"


def sglangs(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", ["greedy", "stop-string", "unfinished", "completion-many", "tools", "stream"])
def test_all_of_sglangs_fields_are_held(verify: Verify, name: str) -> None:
    report = verify(sglangs(name))
    assert report.verdict == "accepted", str(report)


@pytest.mark.parametrize("name", ["greedy", "stop-string", "unfinished", "stream"])
@pytest.mark.parametrize("what", ["text", "shorter", "usage", "stop", "finish"])
def test_what_it_did_not_say_is_rejected(verify: Verify, name: str, what: str) -> None:
    evidence = sglangs(name)
    [choice] = evidence["response"]["choices"]
    if what == "text":
        choice["message"]["content"] += " And more."
    elif what == "shorter":
        choice["message"]["content"] = "x" + choice["message"]["content"][1:]
    elif what == "usage":
        evidence["response"]["usage"]["completion_tokens"] += 1
    elif what == "finish":
        choice["finish_reason"] = "tool_calls" if choice["finish_reason"] == "stop" else "stop"
    elif what == "stop":
        choice["matched_stop"] = 17
    report = verify(evidence)
    # What names a stop is a field of SGLang's own, and so of its form.
    assert report.verdict == ("undecided" if what == "stop" else "rejected"), str(report)


def test_a_prompt_that_engines_render_in_two_ways_is_undecided(verify: Verify, find: Find) -> None:
    """Tools that are not to be called are in vLLM's prompts, and not in SGLang's."""
    evidence = sglangs("tools")
    del evidence["request"]["tool_choice"]
    report = verify(evidence)
    check = find(report, "prompt")
    assert (report.verdict, check.status, check.reason) == ("undecided", "undecided", "other_engine")
    del evidence["response"]["toploc_proofs"]["engine"]
    assert verify(evidence).verdict == "rejected"


def test_a_plain_prompt_is_every_engines(verify: Verify, find: Find) -> None:
    evidence = sglangs("greedy")
    evidence["request"]["messages"][0]["content"] = "What is 17 + 26?"
    report = verify(evidence)
    assert (report.verdict, find(report, "prompt").status) == ("rejected", "failed")


def test_a_text_without_its_unfinished_end(recorded: Recorded) -> None:
    """As vLLM writes it: without the space that is in the token of the first byte either."""
    pieces = ["so", "Ġfar", "!", "Ġð", "Ł"]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    evidence = read_evidence(recorded("greedy"))
    [answer] = evidence.answers
    proofs = answer.proofs.model_copy(update={"token_ids": (0, 1, 2, 3, 4)})

    def status(text: str) -> str:
        said = replace(answer, text=text, finish_reason="length", proofs=proofs)
        return check_text(evidence, said, (), decode=lambda ids, _: tokenizer.decode([*ids]), eos_token_ids=()).status

    assert [status(text) for text in ("so far!", "so far! �", "so far! ")] == ["passed"] * 3
    assert [status(text) for text in ("so far", "so far! x", "so far!!")] == ["failed"] * 3


def test_other_forms_in_a_response_are_undecided() -> None:
    def outcome(claimed: dict[str, Any], rehearsed: dict[str, Any]) -> tuple[str, str | None]:
        forms = Forms({"abc"}, {"�"}, other=True)
        found = check_response(Rehearsed(compare(claimed, rehearsed, forms=forms)), TokenBounds())
        return found.status, found.reason

    text, short = ({"choices": [{"text": text}]} for text in ("abc�", "abc"))
    assert outcome(text, short) == ("undecided", "unfinished_character")
    assert outcome({"text_offset": 0, **text}, {"text_offset": -1, **short}) == ("undecided", "other_engine")
    # A text that no engine writes outweighs both.
    assert outcome({"text_offset": 0, "choices": [{"text": "x"}]}, {"text_offset": -1, **short})[0] == "failed"


def test_which_requests_are_answered_alike(recorded: Recorded) -> None:
    def of(name: str, **options: Any) -> tuple[bool, bool]:
        evidence = recorded(name)
        evidence["request"] |= options
        read = read_evidence(evidence)
        return renders_alike(read), ends_alike(read)

    assert of("greedy") == (True, False)
    assert of("greedy", max_tokens=400) == (True, True)
    assert of("greedy", max_tokens=400, min_tokens=2) == (True, False)
    assert of("greedy", max_tokens=400, response_format={"type": "json_object"}) == (True, False)
    assert of("completion", max_tokens=400) == (True, True)
    assert of("content-parts", max_tokens=400) == (False, True)
    assert of("tool-call", max_tokens=400) == (False, False)


def test_which_log_probabilities_are_alike(recorded: Recorded) -> None:
    def alike(**options: Any) -> bool:
        evidence = recorded("completion")
        evidence["request"] |= options
        return reports_alike(read_evidence(evidence))

    assert alike(temperature=1)
    assert alike(temperature=0)
    assert not alike(temperature=0.6)
    assert not alike(temperature=1, presence_penalty=0.5)
    assert not alike(temperature=1, logit_bias={"7": 1})
    assert not alike(temperature=1, echo=True)


def test_a_temperature_that_a_response_leaves_open(verify: Verify, find: Find) -> None:
    """SGLang draws these at 0.7, and vLLM at 1."""
    evidence = json.loads((RESPONSES / "response-cut.json").read_text("utf-8"))
    found = [find(verify(evidence), "tokens").status]
    evidence["response"]["toploc_proofs"]["engine"] = {"name": "sglang", "version": "0.5.23"}
    found.append(find(verify(evidence), "tokens").status)
    del evidence["request"]["temperature"]
    check = find(verify(evidence), "tokens")
    assert [*found, check.status, check.reason] == ["passed", "passed", "undecided", "constraint"]


def test_options_that_engines_follow_in_two_ways() -> None:
    def followed(constraint: Constraint = Constraint(), **options: Any) -> bool:  # noqa: B008 (frozen)
        return constraint_of_another(constraint, Sampling(**options)) == constraint

    assert followed()
    assert followed(top_k=5)
    assert followed(presence_penalty=1.0, logit_bias={"3": 1})
    assert followed(Constraint(problem="none"), repetition_penalty=1.1)
    assert not followed(repetition_penalty=1.1)
    assert not followed(top_k=5, min_p=0.1)
    assert not followed(Constraint(forbidden=Forbidden(3, "response_format")))
