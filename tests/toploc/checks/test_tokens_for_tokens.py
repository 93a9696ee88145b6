"""Answers of `/inference/v1/generate`, by a verifier without an engine: a recorded completion of ids, in that form."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]
    Json = dict[str, Any]


@pytest.fixture
def evidence(recorded: Recorded) -> Json:
    completion = recorded("completion-ids")
    asked, said = completion["request"], completion["response"]
    kept = {name: asked[name] for name in ("temperature", "max_tokens", "ignore_eos", "seed") if name in asked}
    [choice], [proven] = said["choices"], said["toploc_proofs"]["choices"]
    return {
        "request": {"model": asked["model"], "token_ids": asked["prompt"], "sampling_params": kept},
        "response": {
            "request_id": "generate-tokens-1",
            "model": said["model"],
            "created": said["created"],
            "usage": said["usage"],
            "output_mode": "tokens",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": choice["finish_reason"],
                    "stop_reason": choice["stop_reason"],
                    "token_ids": proven["token_ids"],
                    "weight_versions": [{"version": "default", "start": 0, "end": len(proven["token_ids"])}],
                }
            ],
            "toploc_proofs": said["toploc_proofs"],
        },
    }


def test_honest(verify: Verify, evidence: Json) -> None:
    report = verify(evidence)
    assert report.verdict == "accepted", str(report)
    assert {check.name for check in report.checks} == {
        "model",
        "prompt",
        "proofs",
        "tokens",
        "finish",
        "response",
        "receipt",
    }


def test_as_a_stream_leaves_it(verify: Verify, evidence: Json) -> None:
    """Whose events name no model and no time."""
    for name in ("model", "created", "usage"):
        del evidence["response"][name]
    assert verify(evidence).verdict == "accepted"


def first(evidence: Json) -> Json:
    choice: Json = evidence["response"]["choices"][0]
    return choice


FORGED: dict[str, tuple[Callable[[Json], object], str, str]] = {
    "a token": (lambda e: first(e).update(token_ids=[7, *first(e)["token_ids"][1:]]), "rejected", "response_differs"),
    "a token more": (lambda e: first(e)["token_ids"].append(7), "rejected", "response_differs"),
    "no tokens": (lambda e: first(e).pop("token_ids"), "undecided", "missing_field"),
    "log-probabilities": (lambda e: first(e).update(logprobs={"content": []}), "undecided", "not_bound"),
    "a text": (lambda e: first(e).update(text="one"), "undecided", "unknown_field"),
    "a message": (lambda e: first(e).update(message={"content": "one"}), "undecided", "unknown_field"),
    "a span of weights": (lambda e: first(e)["weight_versions"][0].update(end=3), "rejected", "response_differs"),
    "two weights": (
        lambda e: first(e).update(weight_versions=[{"version": "a", "start": 0, "end": 1}] * 2),
        "undecided",
        "not_bound",
    ),
    "another name for the weights": (lambda e: first(e)["weight_versions"][0].update(version="b"), "accepted", "None"),
    "usage": (lambda e: e["response"]["usage"].update(completion_tokens=1000), "rejected", "response_differs"),
    "text for tokens": (lambda e: e["response"].update(output_mode="text"), "rejected", "response_differs"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged(verify: Verify, find: Find, evidence: Json, name: str) -> None:
    change, verdict, reason = FORGED[name]
    forged = copy.deepcopy(evidence)
    change(forged)
    report = verify(forged)
    assert (report.verdict, str(find(report, "response").reason)) == (verdict, reason), str(report)


@pytest.mark.parametrize(
    ("change", "verdict", "check"),
    [
        (lambda e: e["request"].update(token_ids=[7, *e["request"]["token_ids"][1:]]), "rejected", "prompt"),
        (lambda e: e["request"]["sampling_params"].update(max_tokens=3), "rejected", "finish"),
        (
            lambda e: e["request"]["sampling_params"].update(stop_token_ids=first(e)["token_ids"][:1]),
            "rejected",
            "finish",
        ),
        (lambda e: e["request"]["sampling_params"].update(n=2), "undecided", "evidence"),
        (lambda e: e["request"].update(features={"mm_hashes": {}}), "undecided", "prompt"),
        (lambda e: e["request"].update(content_parts=[{"type": "image_url"}]), "undecided", "prompt"),
        (lambda e: e["request"].update(prompt="one"), "undecided", "evidence"),
        (lambda e: e["request"].pop("sampling_params"), "undecided", "evidence"),
        (lambda e: e["request"].update(token_ids=[]), "undecided", "evidence"),
        (lambda e: e["request"].update(token_ids=[-1]), "undecided", "evidence"),
        (lambda e: e["response"].update(choices="x"), "undecided", "evidence"),
    ],
)
def test_other_requests(
    verify: Verify, evidence: Json, change: Callable[[Json], object], verdict: str, check: str
) -> None:
    change(evidence)
    report = verify(evidence)
    found = {c.name for c in report.checks if c.status == ("failed" if verdict == "rejected" else "undecided")}
    assert report.verdict == verdict, str(report)
    assert check in found, str(report)


@pytest.mark.parametrize("option", ["extra_args", "structured_outputs", "bad_words", "trace_decode_token_ids"])
def test_constraints_skip_the_check_on_tokens(verify: Verify, find: Find, evidence: Json, option: str) -> None:
    evidence["request"]["sampling_params"][option] = {"x": [1]}
    check = find(verify(evidence), "tokens")
    assert (check.status, check.reason) == ("skipped", "options")


def test_the_models_defaults_are_not_the_engines(verify: Verify, find: Find, evidence: Json) -> None:
    """A completion has those of generation_config.json where it leaves an option out; here the engine's own apply."""
    del evidence["request"]["sampling_params"]["temperature"]
    check = find(verify(evidence), "tokens")
    assert check.status != "passed", str(check)
