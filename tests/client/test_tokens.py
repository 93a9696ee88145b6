"""Tokens for tokens, of which no SDK has a route: what was asked, and what a stream adds up to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from toploc_client.assembler import Assembler
from toploc_client.routes import Sent, kind_of

PATH = "/inference/v1/generate"


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ({"token_ids": [1, 2], "sampling_params": {}}, 1),
        ({"token_ids": [1, 2], "sampling_params": {"n": 3}}, 3),
        ({"token_ids": [1, 2], "sampling_params": {"n": None}}, 1),
        ({"token_ids": [1, 2]}, None),
        ({"token_ids": [1, 2], "sampling_params": "x"}, None),
    ],
)
def test_how_many_choices(body: dict[str, Any], choices: int | None) -> None:
    kind = kind_of("POST", PATH)
    assert kind == "generate"
    assert Sent(kind, json.dumps(body).encode(), PATH).choices == choices


def event(index: int, token_ids: list[int], end: str | None = None, **more: Any) -> str:
    choice = {"index": index, "token_ids": token_ids, "logprobs": None, "finish_reason": end}
    return json.dumps({"request_id": "generate-tokens-1", "output_mode": "tokens", "choices": [choice], **more})


def test_a_stream() -> None:
    body = json.dumps({"token_ids": [1, 2], "sampling_params": {"n": 2}}).encode()
    assembler = Assembler(Sent("generate", body, PATH))
    prompt = {"prompt_token_ids": [1, 2]}
    for data in (event(0, [5], **prompt), event(1, [6, 7]), event(0, [8], "length"), event(1, [9], "stop"), "[DONE]"):
        assembler.add(data)
    assembler.end()
    assert assembler.problems == []
    response = assembler.response()
    assert response is not None
    assert [choice["token_ids"] for choice in response["choices"]] == [[5, 8], [6, 7, 9]]
    assert [choice["finish_reason"] for choice in response["choices"]] == ["length", "stop"]
    assert response["prompt_token_ids"] == [1, 2]
    assert not {"object", "message"} & {*response, *response["choices"][0]}


def test_a_choice_that_nobody_asked_for() -> None:
    assembler = Assembler(Sent("generate", json.dumps({"token_ids": [1], "sampling_params": {}}).encode(), PATH))
    assembler.add(event(1, [5], "length"))
    assert [problem.reason for problem in assembler.problems] == ["choices"]
