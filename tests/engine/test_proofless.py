"""Answers of a real server that are held to their text alone, by the same server's verifier."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asking import Api

STORY = [{"role": "user", "content": "Tell me a story."}]
CHAT = "/v1/chat/completions"
GREEDY = {"temperature": 0, "max_tokens": 60}

ASKED: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": (CHAT, {"messages": STORY, **GREEDY}, "text"),
    "two choices": (
        CHAT,
        {"messages": STORY, "max_tokens": 20, "n": 2, "logprobs": True, "temperature": 1},
        "logprobs",
    ),
    "completion": ("/v1/completions", {"prompt": "one, two", **GREEDY}, "text"),
    "completion with log-probabilities": ("/v1/completions", {"prompt": "one", "logprobs": 0, **GREEDY}, "logprobs"),
    "ids": (CHAT, {"messages": STORY, "max_tokens": 20, "temperature": 1, "return_token_ids": True}, "ids"),
    "response": ("/v1/responses", {"input": "What is 17 + 25?", "max_output_tokens": 40, "temperature": 0}, "text"),
    "message": ("/v1/messages", {"messages": STORY, **GREEDY}, "text"),
}


def report_on(api: Api, request: dict[str, Any], response: dict[str, Any], **parts: Any) -> dict[str, Any]:
    body = {"request": request, "response": response, "proofs": "none", **parts}
    reply = api.http.post("/v1/toploc/verify", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def found(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [check for check in report["checks"] if check["name"] == name]


@pytest.mark.parametrize("kind", ASKED)
def test_nothing_is_found_of_an_honest_answer(api: Api, kind: str) -> None:
    path, body, source = ASKED[kind]
    response = api.post(path, **body, toploc={"enabled": False})
    assert "toploc_proofs" not in response
    # A vendor has a name of its own for the model.
    response["model"] = "vendor/mini-turbo"
    report = report_on(api, {"model": "vendor/mini", **body}, response)
    assert report["verdict"] == "undecided", report
    tokens = found(report, "tokens")
    assert {check["status"] for check in tokens} == {"weak"}, report
    assert {check["figures"]["source"] for check in tokens} == {source}
    assert not [check for check in report["checks"] if check["status"] in ("failed", "undecided")]
    if source == "logprobs":
        assert {check["status"] for check in found(report, "response")} == {"weak"}


def test_a_stream_as_it_was_put_together(api: Api) -> None:
    """The request says `stream`; its prompt is the same."""
    request = {"messages": STORY, **GREEDY}
    report = report_on(api, {"stream": True, **request}, api.post(CHAT, **request, toploc={"enabled": False}))
    assert {check["status"] for check in found(report, "tokens")} == {"weak"}


def test_text_that_the_model_does_not_say(api: Api) -> None:
    request = {"messages": STORY, **GREEDY}
    response = api.post(CHAT, **request, toploc={"enabled": False})
    other = api.post(CHAT, messages=STORY, temperature=1, max_tokens=60, toploc={"enabled": False})
    while other["usage"]["completion_tokens"] != 60:
        other = api.post(CHAT, messages=STORY, temperature=1, max_tokens=60, toploc={"enabled": False})
    sent = {**response, "choices": other["choices"], "usage": {**response["usage"], **other["usage"]}}
    report = report_on(api, {"model": "toploc-mini", **request}, sent)
    reasons = {check["reason"] for check in report["checks"] if check["status"] in ("failed", "undecided")}
    assert reasons & {"margin", "count_differs", "retokenised"}, report


def test_log_probabilities_that_are_none_of_the_models(api: Api) -> None:
    body = {"messages": STORY, "logprobs": True, **GREEDY}
    response = api.post(CHAT, **body, toploc={"enabled": False})
    for entry in response["choices"][0]["logprobs"]["content"]:
        entry["logprob"] -= 0.7
    report = report_on(api, body, response)
    assert report["verdict"] == "rejected"
    [check] = found(report, "response")
    assert check["reason"] == "logprobs_differ"


def test_options_that_are_not_known_are_swept(api: Api) -> None:
    body = {"messages": STORY, "max_tokens": 40}
    response = api.post(CHAT, **body, temperature=0, toploc={"enabled": False})
    greedy_or_not = [{"temperature": 0}, {"temperature": 1}]
    report = report_on(api, body, response, sampling=greedy_or_not)
    [check] = found(report, "tokens")
    assert [one["options"] for one in check["figures"]["swept"]] == greedy_or_not
    assert check["status"] == "weak"


def test_a_prompt_of_another_length_accuses_nobody(api: Api) -> None:
    body = {"messages": STORY, **GREEDY}
    system = {"role": "system", "content": "Answer in capitals."}
    response = api.post(CHAT, **{**body, "messages": [system, *STORY]}, toploc={"enabled": False})
    report = report_on(api, body, response)
    assert report["verdict"] == "undecided"
    assert found(report, "prompt")[0]["reason"] == "prompt_length"


def test_a_batch_of_both_kinds(api: Api) -> None:
    """A provider's answer with proofs is held to them, and the same one without is not."""
    body = {"model": "toploc-mini", "messages": STORY, **GREEDY}
    response = api.post(CHAT, **body)
    items = [{"request": body, "response": response}, {"request": body, "response": response, "proofs": "none"}]
    reply = api.http.post("/v1/toploc/verify", json={"items": items})
    lines = sorted(map(json.loads, reply.text.splitlines()), key=lambda line: line["index"])
    found = [[c for c in line["report"]["checks"] if c["status"] in ("failed", "undecided")] for line in lines]
    assert [line["report"]["verdict"] for line in lines] == ["accepted", "undecided"], found
    assert found == [[], []]
