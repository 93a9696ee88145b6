"""Answers under a grammar, bad words, allowed ids and a thinking budget are held to the model, on the live engine."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from toploc_client.assembler import Assembler
from toploc_client.routes import Sent

from models import corpus
from toploc.protocol import FIELD_NAME

if TYPE_CHECKING:
    from asking import Api
    from toploc_client.routes import Kind

    Json = dict[str, Any]

CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
TOOLS = list(corpus.TOOLS.values())
STRICT = {**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
REGEX = {"structured_outputs": {"regex": r"[a-z]{3,8}( [a-z]{2,8}){2,12}\. [0-9]{1,3}"}}

CONSTRAINED: dict[str, tuple[str, Json]] = {
    "json schema": (CHAT, {"messages": STORY, "response_format": SCHEMA}),
    "json object": (CHAT, {"messages": STORY, "response_format": {"type": "json_object"}}),
    "regular expression": (CHAT, {"messages": STORY, **REGEX}),
    "choice": (CHAT, {"messages": STORY, "structured_outputs": {"choice": ["a red house", "a sea", "the wind"]}}),
    "grammar": (COMPLETION, {"prompt": "one", "structured_outputs": {"grammar": 'root ::= ("two" | " three")+'}}),
    "named tool": (
        CHAT,
        {"messages": SUM, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "add"}}},
    ),
    "required tool": (CHAT, {"messages": SUM, "tools": TOOLS, "tool_choice": "required"}),
    "strict tool": (CHAT, {"messages": SUM, "tools": [STRICT]}),
    "bad words": (CHAT, {"messages": STORY, "bad_words": ["the", "wind", "a little"]}),
    "allowed ids": (CHAT, {"messages": STORY, "allowed_token_ids": list(range(2, 400))}),
    "bad words in a grammar": (CHAT, {"messages": STORY, **REGEX, "bad_words": ["a", "the"], "min_tokens": 5}),
    "thinking in the prompt": (COMPLETION, {"prompt": "one, two, <tool_response>", "thinking_token_budget": 9}),
    "no thinking": (COMPLETION, {"prompt": "one, two, <tool_response>", "thinking_token_budget": 0}),
    # Each token is preferred to others that begins to think; once it is forced to end, it begins anew.
    "thinking in the answer": (CHAT, {"messages": STORY, "thinking_token_budget": 4, "logit_bias": {"1022": 100}}),
    "thinking under bad words": (
        COMPLETION,
        {"prompt": "one<tool_response>", "thinking_token_budget": 5, "bad_words": ["two", "</tool_response>"]},
    ),
    "response by a schema": (
        RESPONSE,
        {
            "input": "Tell me a story.",
            "text": {"format": {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}},
        },
    ),
}
DRAWN: dict[str, tuple[Json, str]] = {
    "greedy": ({"temperature": 0}, "passed"),
    "seeded": ({"temperature": 1.0, "seed": 7}, "passed"),
    "unseeded": ({"temperature": 1.0}, "weak"),
}


def asked(name: str, **options: Any) -> tuple[str, Json]:
    route, body = CONSTRAINED[name]
    limit = "max_output_tokens" if route == RESPONSE else "max_tokens"
    return route, {**body, limit: 60, **options}


def whole(api: Api, route: str, body: Json) -> Json:
    """What this project's client keeps of a stream."""
    kinds: dict[str, Kind] = {CHAT: "chat", COMPLETION: "completion", RESPONSE: "response"}
    assembler = Assembler(Sent(kinds[route], json.dumps(body).encode(), route))
    for event in api.stream(route, **body):
        assembler.add(json.dumps(event))
    assembler.end()
    response = assembler.response()
    assert response is not None
    return response


def proven(response: Json) -> Json:
    return response[FIELD_NAME]["choices"][0]


def unsigned(response: Json) -> Json:
    """Without the receipt, which says that the request was another."""
    del proven(response)["receipt"]
    return response


def tokens_of(report: Json) -> Json:
    [check] = [check for check in report["checks"] if check["name"] == "tokens"]
    return check


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("name", CONSTRAINED)
def test_honest_answers_are_held_to_their_tokens(api: Api, name: str, drawn: str) -> None:
    options, status = DRAWN[drawn]
    if name.startswith("response"):
        options = {key: value for key, value in options.items() if key != "seed"}
        status = "weak" if drawn == "seeded" else status
    route, body = asked(name, **options)
    report = api.report(api.post(route, **body), **body)
    assert (report["verdict"], tokens_of(report)["status"]) == ("accepted", status), report
    assert "tokens" in report["coverage"].partition("not checked")[0]


@pytest.mark.parametrize("name", CONSTRAINED)
def test_streams_are_held_to_their_tokens(api: Api, name: str) -> None:
    route, body = asked(name, temperature=1.0)
    report = api.report(whole(api, route, body), stream=True, **body)
    assert (report["verdict"], tokens_of(report)["status"]) == ("accepted", "weak"), report


LOGPROBS: dict[str, Json] = {
    CHAT: {"logprobs": True, "top_logprobs": 4},
    COMPLETION: {"logprobs": 4},
    RESPONSE: {"include": ["message.output_text.logprobs"], "top_logprobs": 4},
}


@pytest.mark.parametrize("drawn", ["greedy", "unseeded"])
@pytest.mark.parametrize("name", CONSTRAINED)
def test_log_probabilities_are_those_under_the_grammar(api: Api, name: str, drawn: str) -> None:
    """vLLM takes them after the grammar's mask, and before those of bad words and allowed ids."""
    route, body = asked(name, **DRAWN[drawn][0])
    body |= LOGPROBS[route]
    response = api.post(route, **body)
    report = api.report(response, **body)
    assert (report["verdict"], tokens_of(report)["status"]) == ("accepted", DRAWN[drawn][1]), report


def first_place(response: Json) -> Json:
    return response["choices"][0]["logprobs"]["content"][0]


def another_chosen(response: Json) -> None:
    first_place(response)["logprob"] -= 2


def a_text_that_is_no_token(response: Json) -> None:
    listed = first_place(response)["top_logprobs"][-1]
    assert listed["logprob"] == -9999.0
    listed.update(token="drink this", bytes=list(b"drink this"))


def an_allowed_token_as_masked(response: Json) -> None:
    place = first_place(response)["top_logprobs"]
    place[1]["logprob"] = -9999.0


def a_masked_token_as_allowed(response: Json) -> None:
    place = first_place(response)["top_logprobs"]
    place[2]["logprob"] = -1.0


FORGED_LOGPROBS = {
    "another chosen": (another_chosen, "rejected"),
    "a text that is no token": (a_text_that_is_no_token, "undecided"),
    "an allowed token as masked": (an_allowed_token_as_masked, "undecided"),
    "a masked token as allowed": (a_masked_token_as_allowed, "rejected"),
}


@pytest.mark.parametrize("forged", FORGED_LOGPROBS)
def test_forged_log_probabilities_under_a_grammar(api: Api, forged: str) -> None:
    change, verdict = FORGED_LOGPROBS[forged]
    body = {"messages": STORY, "structured_outputs": {"choice": ["a red house", "the wind"]}, "temperature": 0}
    body |= {"logprobs": True, "top_logprobs": 4}
    response = api.chat(**body)
    assert api.report(response, **body)["verdict"] == "accepted"
    change(response)
    assert api.report(response, **body)["verdict"] == "rejected"  # it is not what was signed
    del response["toploc_proofs"]["choices"][0]["receipt"]
    assert api.report(response, **body)["verdict"] == verdict


OUTSIDE: dict[str, Json] = {
    "json schema": {"response_format": SCHEMA},
    "regular expression": REGEX,
    "choice": {"structured_outputs": {"choice": ["a red house"]}},
    "required tool": {"tools": TOOLS, "tool_choice": "required"},
    "named tool": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "add"}}},
    "bad words": {"bad_words": []},
    "allowed ids": {"allowed_token_ids": list(range(2, 50))},
}
OPTION = {"bad words": "bad_words", "allowed ids": "allowed_token_ids"}


@pytest.mark.parametrize("name", OUTSIDE)
def test_text_outside_of_what_the_request_leaves(api: Api, name: str) -> None:
    """Written by the same model without the constraint, and proven by an honest prefill."""
    constraint = dict(OUTSIDE[name])
    # The bundled model calls a tool wherever it is shown one.
    free = {"tools": TOOLS, "structured_outputs": {"choice": ["It is 42."]}} if "tools" in constraint else {}
    response = unsigned(api.chat(STORY, max_tokens=40, temperature=0, **free))
    if name == "bad words":
        # Of a word in the middle vLLM may ban the spelling without a space before it alone.
        constraint["bad_words"] = response["choices"][0]["message"]["content"].split()[:1]
    report = api.report(response, messages=STORY, max_tokens=40, temperature=0, **constraint)
    check = tokens_of(report)
    assert (report["verdict"], check["status"], check["reason"]) == ("rejected", "failed", "forbidden"), report
    assert check["figures"]["option"] == OPTION.get(name, "structured_outputs")


@pytest.mark.parametrize(("thought", "allowed"), [(None, 9), (20, 9), (9, 20), (9, None)])
def test_thinking_longer_or_less_than_the_budget(api: Api, thought: int | None, allowed: int | None) -> None:
    """Written by the same model under another budget, and proven by an honest prefill."""
    body: Json = {"prompt": "one, two, <tool_response>", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    response = unsigned(api.post(COMPLETION, **body, thinking_token_budget=thought))
    report = api.report(response, **body, thinking_token_budget=allowed)
    check = tokens_of(report)
    assert (report["verdict"], check["status"]) == ("rejected", "failed"), report
    if allowed is not None and (thought is None or thought > allowed):
        figures = check["figures"]
        assert (check["reason"], figures["option"], figures["place"]) == ("forbidden", "thinking_token_budget", allowed)
    else:
        assert check["reason"] == "margin"


def test_an_end_before_the_grammars(api: Api) -> None:
    """The token that ends an answer is one of those that a grammar leaves, or not."""
    free = unsigned(api.chat(SUM, temperature=0, max_tokens=60))
    assert free["choices"][0]["finish_reason"] == "stop"
    text = free["choices"][0]["message"]["content"]
    longer = {"structured_outputs": {"choice": [text + " So it is."]}}
    report = api.report(free, messages=SUM, temperature=0, max_tokens=60, **longer)
    check = tokens_of(report)
    assert report["verdict"] == "rejected"
    assert (check["reason"], check["figures"]["place"]) == ("forbidden", len(proven(free)["token_ids"]) - 1)


@pytest.mark.parametrize("name", ["json schema", "regular expression", "bad words", "allowed ids"])
def test_another_draw_within_the_constraint(api: Api, name: str) -> None:
    """By a forger who keeps to the grammar, not to the model: what the seed says is another answer."""
    route, body = asked(name, temperature=1.0)
    response = api.post(route, **body, seed=11)
    forged = unsigned(copy.deepcopy(response))
    proven(forged).pop("seed")
    report = api.report(forged, **body, seed=12)
    assert (report["verdict"], tokens_of(report)["reason"]) == ("rejected", "replay"), report


def test_another_grammar_back_end(api: Api) -> None:
    """A server that chooses by itself keeps the back end of its first request. For guidance a schema leaves more fields
    than it names, for xgrammar it does not."""
    schema: Json = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    body = {"messages": STORY, "max_tokens": 60, "temperature": 1.0, "seed": 5}
    open_schema = {**schema, "additionalProperties": True}
    response = unsigned(api.chat(**body, structured_outputs={"json": open_schema}))
    text = response["choices"][0]["message"]["content"]
    assert text.count('":') > 1, text
    report = api.report(response, **body, structured_outputs={"json": schema})
    assert (report["verdict"], tokens_of(report)["status"]) == ("accepted", "passed"), report
    closed = {**schema, "additionalProperties": False}
    report = api.report(response, **body, structured_outputs={"json": closed})
    assert (report["verdict"], tokens_of(report)["reason"]) == ("rejected", "forbidden"), report
