"""Seeded answers of a real engine: a verifier draws the same tokens with the sampler's own noise."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from toploc.thresholds.bounds import Thresholds
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from asking import Api

    from toploc.verifier.prefill import TransformersPrefill

STORY = [{"role": "user", "content": "Tell me a story."}]
SEEDED = {"messages": STORY, "max_tokens": 120, "ignore_eos": True, "seed": 2**53 + 7}
OPTIONS = [
    {"temperature": 1, "n": 3},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 20, "min_p": 0.02},
    {"temperature": 1.5, "repetition_penalty": 1.2, "presence_penalty": 0.4, "logit_bias": {"400": 3, "5": -100}},
]


@pytest.fixture(scope="module")
def verifier(prefill: TransformersPrefill) -> TransformersVerifier:
    return TransformersVerifier(prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))


@pytest.fixture(scope="module")
def answers(api: Api) -> list[dict[str, Any]]:
    """Evidence; others are sampled in the same batches."""
    return [
        {"request": {"model": "toploc-mini", **SEEDED, **options}, "response": api.chat(**SEEDED, **options)}
        for options in OPTIONS
    ]


def checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [check for check in report["checks"] if check["name"] == "tokens"]


def test_both_backends_draw_the_same_tokens(
    api: Api, verifier: TransformersVerifier, answers: list[dict[str, Any]]
) -> None:
    for answer in answers:
        field = answer["response"]["toploc_proofs"]
        assert field["sampler"] == "splitmix64"
        assert [choice["seed"] for choice in field["choices"]] == [2**53 + 7 + i for i in range(len(field["choices"]))]
        by_server = api.http.post("/v1/toploc/verify", json=answer).json()
        for report in (by_server, verifier.verify(json.dumps(answer)).model_dump()):
            assert report["verdict"] == "accepted", str(report)
            assert all(check["status"] == "passed" for check in checks(report)), report
            assert all(check["figures"]["replay_worst"] <= 0.25 for check in checks(report)), report


def test_answers_that_are_not_of_the_seed(
    api: Api, verifier: TransformersVerifier, answers: list[dict[str, Any]]
) -> None:
    for answer in answers:
        asked = copy.deepcopy(answer)
        asked["request"]["seed"] += 1
        assert {check["reason"] for check in checks(verifier.verify(json.dumps(asked)).model_dump())} == {
            "seed_differs"
        }
        drawn = copy.deepcopy(answer)
        del drawn["request"]["seed"]
        for choice in drawn["response"]["toploc_proofs"]["choices"]:
            choice["seed"] += 5
        by_server = api.http.post("/v1/toploc/verify", json=drawn).json()
        for report in (by_server, verifier.verify(json.dumps(drawn)).model_dump()):
            assert {check["reason"] for check in checks(report)} == {"replay"}, report


def test_what_a_server_does_not_say_is_undecided(verifier: TransformersVerifier, answers: list[dict[str, Any]]) -> None:
    silent = copy.deepcopy(answers[1])
    del silent["response"]["toploc_proofs"]["sampler"]
    report = verifier.verify(json.dumps(silent)).model_dump()
    assert [(check["status"], check["reason"]) for check in checks(report)] == [("undecided", "seed")]


def test_only_drawn_answers_have_a_seed(api: Api) -> None:
    for options in ({"temperature": 0, "seed": 3}, {"temperature": 1}):
        field = api.chat(STORY, max_tokens=3, **options)["toploc_proofs"]
        assert "sampler" not in field
        assert "seed" not in field["choices"][0]
