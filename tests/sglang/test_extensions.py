"""SGLang's own fields in a response (`sglext`, token ids): held where a rehearsal has them, and else no accusation."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from asking import Api

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
STORY = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 40, "temperature": 0}
ONCE = {"prompt": "Once upon", "max_tokens": 40, "temperature": 1}
IN_SGLEXT = {"return_input_ids_in_sglext": True, "return_output_ids_in_sglext": True}
CACHED = {"return_cached_tokens_details": True}
Json = dict[str, Any]


def answer(api: Api, path: str, body: Json) -> Json:
    """Without its receipts, which would tell of a change before the response does."""
    made: Json = api.assembled(path, **body) if body.get("stream") else api.post(path, **body)
    for choice in made["toploc_proofs"]["choices"]:
        del choice["receipt"]
    return made


def outcome(api: Api, response: Json, body: Json) -> tuple[str, str | None]:
    """The verdict, and the reason of the check `response`."""
    report = api.report(response, **body)
    [reason] = [check["reason"] for check in report["checks"] if check["name"] == "response"]
    return report["verdict"], reason


def other(ids: list[int]) -> None:
    ids[5] += 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "change"),
    [
        (CHAT, {**STORY, **IN_SGLEXT}, lambda r: other(r["sglext"]["input_ids"])),
        (CHAT, {**STORY, **IN_SGLEXT, "temperature": 1, "n": 2}, lambda r: other(r["sglext"]["output_ids"][1])),
        (COMPLETION, {**ONCE, "return_token_ids": True}, lambda r: other(r["choices"][0]["token_ids"])),
    ],
    ids=["prompt", "answers", "of a choice"],
)
def test_token_ids_are_held(api: Api, path: str, body: Json, change: Callable[[Json], None], stream: bool) -> None:
    asked = {**body, "stream": stream}
    response = answer(api, path, asked)
    assert outcome(api, response, asked) == ("accepted", None)
    change(response)
    assert outcome(api, response, asked) == ("rejected", "response_differs")


def test_token_ids_of_a_chats_choice_are_held(api: Api) -> None:
    """With its prompt's, for which SGLang gives no stream."""
    asked = {**STORY, "return_token_ids": True, "return_prompt_token_ids": True}
    response = answer(api, CHAT, asked)
    assert outcome(api, response, asked) == ("accepted", None)
    for name in ("response_token_ids", "prompt_token_ids"):
        changed = copy.deepcopy(response)
        other(changed["choices"][0][name])
        assert outcome(api, changed, asked) == ("rejected", "response_differs")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [(CHAT, STORY), (COMPLETION, ONCE)])
def test_what_the_cache_held_is_free(api: Api, path: str, body: Json, stream: bool) -> None:
    asked = {**body, **CACHED, "stream": stream}
    response = answer(api, path, asked)
    assert response["sglext"]["cached_tokens_details"].keys() == {"device", "host"}
    assert outcome(api, response, asked) == ("accepted", None)
    response["sglext"]["note"] = "anything"
    assert outcome(api, response, asked) == ("undecided", "unknown_field")


def test_what_the_engine_alone_knows_accuses_nobody(api: Api) -> None:
    """As a mixture of experts adds it, which does not run on processors."""
    asked = {**STORY, **CACHED, **IN_SGLEXT, "return_routed_experts": True, "return_hidden_states": False}
    response = answer(api, CHAT, asked)
    assert outcome(api, response, asked) == ("accepted", None)
    response["sglext"]["routed_experts"] = "AAECAwQFBgc="
    assert outcome(api, response, asked) == ("undecided", "not_bound")
    changed = copy.deepcopy(response)
    changed["choices"][0]["message"]["content"] += " And more."
    assert outcome(api, changed, asked) == ("rejected", "response_differs")
    other(response["sglext"]["output_ids"][0])
    assert outcome(api, response, asked) == ("rejected", "response_differs")
