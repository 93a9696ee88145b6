"""Prompts that nobody knew before, and the requests that are made of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from toploc_client.vendors.canaries import canary
from toploc_client.vendors.config import Requests
from toploc_client.vendors.questions import questions

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_seed_gives_the_same_and_another_gives_others() -> None:
    assert [canary("a", n) for n in range(50)] == [canary("a", n) for n in range(50)]
    assert len({canary(seed, n) for seed in "ab" for n in range(200)}) > 390
    assert not [text for n in range(200) if any(mark in (text := canary("a", n)) for mark in "{}")]


def test_what_is_asked() -> None:
    asked = questions(Requests(canaries=3, sampled=2, streamed=2, tools=4, tokens=7), "a")
    assert [one.key for one in asked] == [
        *("canary:0", "canary:1", "canary:2", "streamed:0", "streamed:1", "sampled:0", "sampled:1"),
        *("tools:0", "tools:1", "tools:2", "tools:3"),
    ]
    assert asked[3].body == {**asked[0].body, "stream": True, "stream_options": {"include_usage": True}}
    assert asked[0].body["messages"] != asked[5].body["messages"]
    assert {one.body["temperature"] for one in asked[:5]} == {0}
    assert {one.body["max_tokens"] for one in asked[:7]} == {7}
    assert all("tools" in one.body for one in asked[7:])


def test_own_requests(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    path.write_text(json.dumps(body) + "\n\n")
    [own] = questions(Requests(canaries=0, streamed=0, tools=0, file=path), "a")
    assert (own.key, "model" in own.body) == ("own:0", False)
    for wrong, said in (("{", "no JSON"), ("[]", "expected the body"), ('{"prompt": "a"}', "expected the body")):
        path.write_text(wrong)
        with pytest.raises(ToplocError, match=said):
            questions(Requests(file=path), "a")
    with pytest.raises(ToplocError, match="cannot be read"):
        questions(Requests(file=tmp_path / "none"), "a")
