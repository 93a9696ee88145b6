"""POST /v1/toploc/verify: honest answers are accepted, altered ones rejected, what is not rehearsed undecided."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asking import Api

STORY = {"model": "toploc-mini", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 70}
GREEDY = {**STORY, "temperature": 0}
SAMPLED = {**STORY, "temperature": 1.0}
SUM = {"model": "toploc-mini", "messages": [{"role": "user", "content": "What is 17 + 25?"}], "temperature": 0}


def answer(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return api.post(path, **body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", GREEDY),
        ("/v1/chat/completions", SAMPLED),
        ("/v1/chat/completions", {**SAMPLED, "n": 2}),
        ("/v1/chat/completions", {**SUM, "stop": ["= 4"]}),
        ("/v1/chat/completions", SUM),
        ("/v1/completions", {"model": "toploc-mini", "prompt": ["Once upon", "The"], "max_tokens": 40}),
        ("/v1/messages", {"model": "toploc-mini", "messages": STORY["messages"], "max_tokens": 40}),
        ("/v1/responses", {"model": "toploc-mini", "input": "Tell me a story.", "max_output_tokens": 40}),
    ],
)
def test_honest_answers_are_accepted(api: Api, path: str, body: dict[str, Any]) -> None:
    report = api.report(answer(api, path, body), **body)
    assert report["verdict"] == "accepted", str(report)
    # Of tokens that are sampled without a seed there is no more than their surprise.
    checked = report["coverage"].partition("; not checked")[0].replace("weakly: ", "")
    for name in ("model", "prompt", "proofs", "tokens", "response"):
        assert name in checked


def test_a_cached_prompt_is_run_again(api: Api) -> None:
    """Twice: the second time everything of the answer is in the engine's cache."""
    response = answer(api, "/v1/chat/completions", GREEDY)
    for _ in range(2):
        assert api.report(response, **GREEDY)["verdict"] == "accepted"


def altered(response: dict[str, Any], what: str) -> dict[str, Any]:
    changed = copy.deepcopy(response)
    choice, proofs = changed["choices"][0], changed["toploc_proofs"]
    if what == "text":
        choice["message"]["content"] += " And more."
    elif what == "token":
        proofs["choices"][0]["token_ids"][40] += 1
    elif what == "proof":
        proofs["choices"][0]["proofs"] = proofs["choices"][0]["proofs"][::-1]
    elif what == "finish":
        choice["finish_reason"] = "stop"
    elif what == "cut":
        proofs["choices"][0]["token_ids"] = proofs["choices"][0]["token_ids"][:64]
        proofs["choices"][0]["proofs"] = proofs["choices"][0]["proofs"][:2]
    return changed


@pytest.mark.parametrize("what", ["text", "token", "proof", "finish", "cut"])
def test_altered_answers_are_rejected(api: Api, what: str) -> None:
    body = {**GREEDY, "ignore_eos": True}
    response = answer(api, "/v1/chat/completions", body)
    assert api.report(response, **body)["verdict"] == "accepted"
    unsigned = altered(response, what)
    del unsigned["toploc_proofs"]["choices"][0]["receipt"]
    assert api.report(unsigned, **body)["verdict"] == "rejected"


def test_the_answer_to_another_request_is_rejected(api: Api) -> None:
    report = api.report(answer(api, "/v1/chat/completions", GREEDY), **SUM)
    assert report["verdict"] == "rejected"


CHAT_SCORED = {"logprobs": True, "top_logprobs": 3}
COMPLETION = {
    "model": "toploc-mini",
    "prompt": ["Once upon", "The"],
    "max_tokens": 40,
    "temperature": 1,
    "ignore_eos": True,
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**GREEDY, **CHAT_SCORED}),
        ("/v1/chat/completions", {**SAMPLED, **CHAT_SCORED, "n": 2}),
        ("/v1/chat/completions", {**SAMPLED, "logprobs": True}),
        ("/v1/chat/completions", {**SAMPLED, **CHAT_SCORED, "top_p": 0.9}),
        ("/v1/completions", {**COMPLETION, "logprobs": 3}),
        ("/v1/completions", {**COMPLETION, "logprobs": 0, "n": 2}),
    ],
)
def test_log_probabilities_are_bound(api: Api, path: str, body: dict[str, Any]) -> None:
    response = answer(api, path, body)
    report = api.report(response, **body)
    assert report["verdict"] == "accepted", str(report)
    assert "response" in report["coverage"].partition("; not checked")[0]
    said = response["choices"][0]["logprobs"]
    if path == "/v1/chat/completions":
        said["content"][3]["logprob"] -= 1
    else:
        said["token_logprobs"][3] -= 1
    for choice in response["toploc_proofs"]["choices"]:
        del choice["receipt"]
    assert api.report(response, **body)["verdict"] == "rejected"


def test_likeliest_tokens_are_bound(api: Api) -> None:
    body = {**SAMPLED, **CHAT_SCORED}
    response = answer(api, "/v1/chat/completions", body)
    del response["toploc_proofs"]["choices"][0]["receipt"]
    response["choices"][0]["logprobs"]["content"][3]["top_logprobs"].pop()
    assert api.report(response, **body)["verdict"] == "rejected"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # Of these the log-probabilities are those after the options.
        ("/v1/chat/completions", {**SAMPLED, **CHAT_SCORED, "temperature": 0.7}),
        ("/v1/chat/completions", {**SAMPLED, **CHAT_SCORED, "frequency_penalty": 0.5}),
        # Of these they are the prompt's too.
        ("/v1/completions", {**COMPLETION, "prompt": "Once upon", "logprobs": 1, "echo": True}),
        (
            "/v1/responses",
            {
                "model": "toploc-mini",
                "input": "Tell me a story.",
                "max_output_tokens": 40,
                "include": ["message.output_text.logprobs"],
            },
        ),
    ],
)
def test_others_are_undecided(api: Api, path: str, body: dict[str, Any]) -> None:
    report = api.report(answer(api, path, body), **body)
    assert report["verdict"] == "undecided", report
    checked, _, rest = report["coverage"].partition("; not checked")
    assert "response" in rest
    assert "proofs" in checked


def test_altered_text_beside_them_is_rejected(api: Api) -> None:
    body = {**SAMPLED, **CHAT_SCORED, "temperature": 0.7}
    response = altered(answer(api, "/v1/chat/completions", body), "text")
    del response["toploc_proofs"]["choices"][0]["receipt"]
    assert api.report(response, **body)["verdict"] == "rejected"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", GREEDY),
        ("/v1/chat/completions", {**SAMPLED, "n": 2}),
        ("/v1/completions", {"model": "toploc-mini", "prompt": "Once upon", "max_tokens": 40}),
        ("/v1/chat/completions", {**GREEDY, **CHAT_SCORED}),
        ("/v1/completions", {**COMPLETION, "logprobs": 2}),
        ("/v1/messages", {"model": "toploc-mini", "messages": STORY["messages"], "max_tokens": 40}),
        ("/v1/responses", {"model": "toploc-mini", "input": "Tell me a story.", "max_output_tokens": 40}),
    ],
)
def test_streams_are_accepted_as_they_are_put_together(api: Api, path: str, body: dict[str, Any]) -> None:
    """With their receipts, which are of what was streamed under the response's own id."""
    response = api.assembled(path, **body)
    report = api.report(response, **body, stream=True)
    assert report["verdict"] == "accepted", str(report)
    assert "receipt" in report["coverage"].partition("; not checked")[0]


def test_streams_that_leave_log_probabilities_out_accuse_nobody(api: Api) -> None:
    """A token without text, such as the one that would end the answer, has an event only with another that has some,
    so whether its log-probability is sent depends on time."""
    body = {**SUM, **CHAT_SCORED, "max_tokens": 60, "ignore_eos": True}
    response = api.assembled("/v1/chat/completions", **body)
    said = response["choices"][0]["logprobs"]["content"]
    assert len(said) < len(response["toploc_proofs"]["choices"][0]["token_ids"])
    report = api.report(response, **body, stream=True)
    assert report["verdict"] == "undecided", report
    assert "response" in report["coverage"].partition("; not checked")[2]
