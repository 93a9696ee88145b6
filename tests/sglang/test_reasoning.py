"""Reasoning parsers: proofs cover all tokens, and responses are rehearsed with their reasoning and its length."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from asking import Api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc_proxy.local_server import LocalServer

    from toploc.verifier.prefill import TransformersPrefill

pytestmark = pytest.mark.sglang_all

ASKED = [{"role": "user", "content": "Tell me a story."}]
CHAT = {"model": "toploc-mini", "messages": ASKED, "max_tokens": 40, "temperature": 1, "ignore_eos": True}


@pytest.fixture(scope="module")
def reasoning(launch: Callable[..., LocalServer]) -> Iterator[Api]:
    """By a parser for which all is reasoning until its end."""
    with launch("--reasoning-parser", "deepseek-r1") as server, Api(server.url) as api:
        yield api


@pytest.mark.parametrize("more", [{}, {"separate_reasoning": False}, {"n": 2}])
def test_reasoning_is_rehearsed(reasoning: Api, verified: Callable[..., Any], more: dict[str, Any]) -> None:
    body = {**CHAT, **more}
    answer = reasoning.post("/v1/chat/completions", **body)
    verified(answer["toploc_proofs"], ASKED)
    report = reasoning.report(answer, **body)
    assert report["verdict"] == "accepted", str(report)
    message = answer["choices"][0]["message"]
    if "separate_reasoning" in more:
        assert message["content"]
    else:
        assert message["reasoning_content"]
        message["reasoning_content"] += " And more."
        assert reasoning.report(answer, **body)["verdict"] == "rejected"


def test_a_stream(reasoning: Api) -> None:
    response = reasoning.assembled("/v1/chat/completions", **CHAT)
    report = reasoning.report(response, **CHAT, stream=True)
    assert report["verdict"] == "accepted", str(report)


def test_how_much_is_counted(reasoning: Api, prefill: TransformersPrefill) -> None:
    """Until the end that the parser looks for. The model does not write it, so the tokens are given."""
    pieces = [prefill.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("A sum", "</think>", "Four.")]
    token_ids = [token for piece in pieces for token in piece]
    body = {**CHAT, "max_tokens": len(token_ids)}
    made = reasoning.post("/v1/chat/completions", **body)
    [choice], count = made["toploc_proofs"]["choices"], len(pieces[0]) + len(pieces[1])
    choice["token_ids"] = token_ids
    made["choices"][0]["message"] |= {"content": "Four.", "reasoning_content": "A sum"}
    made["usage"]["reasoning_tokens"] = count
    for said, status in ((count, "passed"), (count + 1, "failed")):
        told = copy.deepcopy(made)
        told["usage"]["reasoning_tokens"] = said
        if "completion_tokens_details" in told["usage"]:
            told["usage"]["completion_tokens_details"] = {"reasoning_tokens": said}
        report = reasoning.report(told, **body)
        assert {check["name"]: check["status"] for check in report["checks"]}["response"] == status, report
