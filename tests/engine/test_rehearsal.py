"""The whole response is bound to its tokens: what the server itself gives is accepted on every route, streamed or not,
and nothing else is."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from toploc_client.assembler import Assembler
from toploc_client.routes import Sent

from models import corpus
from toploc.leaves import FREE, pattern_of
from toploc.protocol import FIELD_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asking import Api
    from toploc_client.routes import Kind

    Json = dict[str, Any]
    Path = tuple[str | int, ...]

CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGE, BATCH, TOKENS = "/v1/messages", "/v1/chat/completions/batch", "/inference/v1/generate"
IDS = list(range(300, 312))
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
TOOLS = list(corpus.TOOLS.values())
USAGE = {"stream_options": {"include_usage": True}}
ONE_WAY = frozenset({"chat, log-probabilities of the prompt", "batch", "tokens, log-probabilities of the prompt"})
"""What vLLM does not stream."""

ASKED: dict[str, tuple[str, Json]] = {
    "chat": (CHAT, {"messages": SUM, "temperature": 0}),
    "chat with usage": (CHAT, {"messages": SUM, "temperature": 0, **USAGE}),
    "chat of three choices": (CHAT, {"messages": STORY, "n": 3, "max_tokens": 40, **USAGE}),
    "chat with a stop string": (CHAT, {"messages": STORY, "stop": ["wind w"], "temperature": 0, "max_tokens": 200}),
    "chat with a stop string that stays": (
        CHAT,
        {"messages": STORY, "stop": "wind w", "include_stop_str_in_output": True, "temperature": 0, "max_tokens": 200},
    ),
    "chat with tools": (CHAT, {"messages": SUM, "tools": TOOLS, "temperature": 0}),
    "chat that has to call": (
        CHAT,
        {"messages": SUM, "tools": TOOLS, "tool_choice": "required", "temperature": 0, "max_tokens": 100},
    ),
    "chat that goes on": (
        CHAT,
        {
            "messages": [*SUM, {"role": "assistant", "content": "It is"}],
            "echo": True,
            "add_generation_prompt": False,
            "continue_final_message": True,
            "max_tokens": 20,
        },
    ),
    "chat with token ids": (CHAT, {"messages": SUM, "return_token_ids": True, "temperature": 0}),
    "chat by a grammar": (
        CHAT,
        {"messages": SUM, "structured_outputs": {"choice": ["a red house", "a sea"]}, "temperature": 0},
    ),
    "chat, log-probabilities": (
        CHAT,
        {"messages": STORY, "logprobs": True, "max_tokens": 40, "temperature": 1.5},
    ),
    "chat, the likeliest five": (
        CHAT,
        {"messages": STORY, "logprobs": True, "top_logprobs": 5, "n": 2, "max_tokens": 40, "temperature": 1.5},
    ),
    "chat, the likeliest twenty": (CHAT, {"messages": STORY, "logprobs": True, "top_logprobs": 20, "max_tokens": 20}),
    "chat, given tokens": (
        CHAT,
        {"messages": STORY, "logprobs": True, "logprob_token_ids": [5, 700], "max_tokens": 10},
    ),
    "chat, log-probabilities of the prompt": (CHAT, {"messages": STORY, "prompt_logprobs": 3, "max_tokens": 10}),
    "completion": (COMPLETION, {"prompt": "one, two, three", "max_tokens": 20, "temperature": 0}),
    "completions of two prompts": (
        COMPLETION,
        {"prompt": ["one, two", "January"], "n": 2, "max_tokens": 20, "ignore_eos": True, **USAGE},
    ),
    "completion with its prompt": (
        COMPLETION,
        {"prompt": "one, two, three", "echo": True, "max_tokens": 20, "temperature": 0},
    ),
    "completion, the likeliest three": (
        COMPLETION,
        {"prompt": "one, two", "logprobs": 3, "max_tokens": 30, "temperature": 1.5},
    ),
    "completion, the likeliest two of the prompt too": (
        COMPLETION,
        {"prompt": "one, two, three", "echo": True, "logprobs": 2, "max_tokens": 5},
    ),
    "completion with token ids": (COMPLETION, {"prompt": [300, 301], "return_token_ids": True, "max_tokens": 10}),
    "response": (RESPONSE, {"input": "What is 17 + 25?", "instructions": "Answer briefly.", "temperature": 0}),
    "response cut short": (RESPONSE, {"input": "Tell me a story.", "max_output_tokens": 33}),
    "response with tools": (
        RESPONSE,
        {
            "input": "What is 17 + 25?",
            "tools": [{"type": "function", **t["function"]} for t in TOOLS],
            "temperature": 0,
        },
    ),
    "response, the likeliest three": (
        RESPONSE,
        {
            "input": "Tell me a story.",
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 3,
            "max_output_tokens": 20,
        },
    ),
    "message": (MESSAGE, {"messages": SUM, "max_tokens": 50, "system": "Answer briefly."}),
    "message with a stop string": (
        MESSAGE,
        {"messages": STORY, "max_tokens": 200, "stop_sequences": ["wind w"], "temperature": 0},
    ),
    "message with tools": (
        MESSAGE,
        {
            "messages": SUM,
            "max_tokens": 100,
            "temperature": 0,
            "tools": [
                {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
                for f in (tool["function"] for tool in TOOLS)
            ],
        },
    ),
    "batch": (BATCH, {"messages": [SUM, STORY], "max_tokens": 30}),
    "tokens": (
        TOKENS,
        {"token_ids": IDS, "sampling_params": {"temperature": 0, "max_tokens": 70}, "return_token_ids": True, **USAGE},
    ),
    "tokens up to the model's own end": (TOKENS, {"token_ids": IDS, "sampling_params": {"temperature": 0}}),
    "tokens of three choices": (
        TOKENS,
        {"token_ids": IDS, "sampling_params": {"n": 3, "max_tokens": 40, "ignore_eos": True, "seed": 7}},
    ),
    "tokens, log-probabilities": (
        TOKENS,
        {"token_ids": IDS, "sampling_params": {"logprobs": 0, "max_tokens": 40, "temperature": 1.5}},
    ),
    "tokens, the likeliest five": (
        TOKENS,
        {"token_ids": IDS, "sampling_params": {"logprobs": 5, "n": 2, "max_tokens": 40, "temperature": 1.5}},
    ),
    "tokens, log-probabilities of the prompt": (
        TOKENS,
        {"token_ids": IDS, "sampling_params": {"prompt_logprobs": 2, "max_tokens": 5}},
    ),
    "tokens with their text": (
        TOKENS,
        {
            "token_ids": IDS,
            "output_mode": "text",
            "sampling_params": {"temperature": 0, "max_tokens": 40, "logprobs": 2, "stop": ["zebra"]},
        },
    ),
}


SEEDED = (CHAT, COMPLETION, BATCH)
KINDS: dict[str, Kind] = {
    CHAT: "chat",
    COMPLETION: "completion",
    RESPONSE: "response",
    MESSAGE: "message",
    TOKENS: "generate",
}


def assembled(path: str, request: Json, events: list[Json]) -> Json:
    """What this project's client keeps of a stream."""
    assembler = Assembler(Sent(KINDS[path], json.dumps(request).encode(), path))
    for event in events:
        assembler.add(json.dumps(event))
    assembler.end()
    response = assembler.response()
    assert assembler.problems == []
    assert response is not None
    return response


@pytest.fixture(scope="module")
def answer(api: Api) -> Callable[..., tuple[Json, Json]]:
    """Request and response, whole or as the events of a stream."""

    def ask(name: str, *, stream: bool = False) -> tuple[Json, Json]:
        path, body = ASKED[name]
        if path in SEEDED and body.get("temperature") != 0:
            # Which are replayed exactly; of a thousand others one is refused, by the rates that the checks are set to.
            body = {"seed": 7, **body}
        if stream:
            return {**body, "stream": True}, assembled(path, body, api.stream(path, **body))
        body = {option: value for option, value in body.items() if option != "stream_options"}
        return body, api.post(path, **body)

    return ask


def response_of(report: Json) -> Json:
    [check] = [check for check in report["checks"] if check["name"] == "response"]
    found: Json = check
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ASKED)
def test_what_the_server_gives_is_what_its_tokens_say(
    api: Api, answer: Callable[..., tuple[Json, Json]], name: str, stream: bool
) -> None:
    if stream and name in ONE_WAY:
        pytest.skip("vLLM streams none of these")
    request, response = answer(name, stream=stream)
    report = api.report(response, **request)
    check = response_of(report)
    assert (report["verdict"], check["status"]) == ("accepted", "passed"), check
    assert {"text", "finish"}.isdisjoint(check["name"] for check in report["checks"])
    assert check["figures"]["rehearsed"]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, name))
        elif item is not None:
            yield (*path, name), item


def changed(parent: Any, name: str | int) -> None:
    value = parent[name]
    if isinstance(value, bool):
        parent[name] = not value
    elif isinstance(value, int):
        parent[name] = value * 10**6 + 7  # a rank is bound up to the noise of what it ranks
    elif isinstance(value, float):
        parent[name] = value + 7
    else:
        parent[name] = f"{value}x"


def removed(parent: Any, name: str | int) -> None:
    del parent[name]


def given_a_neighbour(parent: Any, name: str | int) -> None:
    if isinstance(parent, dict):
        parent["also"] = parent[name]
    else:
        parent.append(parent[name])


def doubled(parent: Any, name: str | int) -> None:
    parent[name] = [parent[name], parent[name]]


MUTATED = (
    "chat with usage",
    "chat of three choices",
    "chat with tools",
    "chat with token ids",
    "chat, the likeliest five",
    "completions of two prompts",
    "completion, the likeliest three",
    "response with tools",
    "response, the likeliest three",
    "message with tools",
    "batch",
    "tokens",
    "tokens, the likeliest five",
)
SAMPLED = 6
"""Leaves of a response that are touched here; `test_mutations.py` touches all, by a server that computes once."""


@pytest.mark.parametrize("name", MUTATED)
def test_no_leaf_can_be_touched_but_the_free(api: Api, answer: Callable[..., tuple[Json, Json]], name: str) -> None:
    request, response = answer(name)
    field = response.pop(FIELD_NAME)
    for choice in field["choices"]:
        del choice["receipt"]  # which covers the id too
    found = list(leaves(response))
    found = found[:: max(1, len(found) // SAMPLED)]
    items, expected = [], []
    for path, _ in found:
        for change in (changed, removed, given_a_neighbour, doubled):
            mutant = copy.deepcopy(response)
            parent: Any = mutant
            for part in path[:-1]:
                parent = parent[part]
            change(parent, path[-1])
            items.append({"request": {"model": "toploc-mini", **request}, "response": {**mutant, FIELD_NAME: field}})
            expected.append((path, change.__name__, change in (changed, removed) and pattern_of(path) in FREE))
    lines: list[Json] = []
    for first in range(0, len(items), 50):  # within the limit of one body
        reply = api.http.post("/v1/toploc/verify", json={"items": items[first : first + 50]})
        lines += sorted((json.loads(line) for line in reply.text.splitlines()), key=lambda line: line["index"])
    for line, (path, how, is_free) in zip(lines, expected, strict=True):
        # What is not to be read at all is an error of its own.
        verdict = line["report"]["verdict"] if "report" in line else "malformed"
        # Names are compared by a check of their own; a client's evidence may lack any free leaf.
        if path == ("model",):
            continue
        assert (verdict == "accepted") is is_free, (pattern_of(path), how, line)


OTHER = "Book the flight, whatever it costs."


def message(response: Json) -> Json:
    found: Json = response["choices"][0]["message"]
    return found


def cut_short(request: Json, response: Json) -> None:
    proven = response[FIELD_NAME]["choices"][0]
    proven.update(token_ids=proven["token_ids"][:32], proofs=proven["proofs"][:1])
    response["choices"][0]["finish_reason"] = "content_filter"


def past_a_stop_string(request: Json, response: Json) -> None:
    request["stop"] = [" the"]


def said_to_end_with_a_call(request: Json, response: Json) -> None:
    response["choices"][0]["finish_reason"] = "tool_calls"


def echoed(request: Json, response: Json) -> None:
    request["echo"] = True
    message(response)["content"] = OTHER


def also_a_message(request: Json, response: Json) -> None:
    request["max_tokens"] = 400
    response |= {"type": "message", "content": [{"type": "text", "text": message(response)["content"]}]}
    message(response)["content"] = OTHER


def thought_up(request: Json, response: Json) -> None:
    message(response).update(content="1", reasoning="They want to hear of one.")


def with_logprobs(request: Json, response: Json) -> None:
    response["choices"][0]["logprobs"] = {"content": [{"token": "1", "logprob": -0.1, "bytes": [49]}]}


def refused(request: Json, response: Json) -> None:
    message(response)["refusal"] = "I will not."


def annotated(request: Json, response: Json) -> None:
    message(response)["citations"] = [{"url": "https://example.org", "title": OTHER}]


def costly(request: Json, response: Json) -> None:
    response["usage"] = {name: 1000 * (count or 0) for name, count in response["usage"].items()}


def other_token_ids(request: Json, response: Json) -> None:
    request["return_token_ids"] = True
    response["choices"][0]["token_ids"], response["prompt_token_ids"] = [1, 2, 3], [9]


def other_arguments(request: Json, response: Json) -> None:
    message(response)["tool_calls"][0]["function"]["arguments"] = '{"a": 1, "b": 1}'


def a_search(request: Json, response: Json) -> None:
    response["output"].insert(0, {"type": "web_search_call", "id": "w", "status": "completed"})
    response["output"][-1]["content"][0]["text"] = "2"


def search_results(request: Json, response: Json) -> None:
    found = {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": OTHER}]}
    response["content"].insert(0, found)


def a_less_likely_token(request: Json, response: Json) -> None:
    response["choices"][0]["logprobs"]["content"][3]["logprob"] -= 2


def another_alternative(request: Json, response: Json) -> None:
    place = response["choices"][0]["logprobs"]["content"][3]["top_logprobs"]
    place[-1].update(token="zebra", bytes=list(b"zebra"))


def another_token(request: Json, response: Json) -> None:
    response["choices"][0]["token_ids"][3] += 1


def another_prompt(request: Json, response: Json) -> None:
    response["prompt_token_ids"][3] += 1


def under_other_weights(request: Json, response: Json) -> None:
    response["choices"][0]["weight_versions"] = [
        {"version": "1", "start": 0, "end": 3},
        {"version": "2", "start": 3, "end": 40},
    ]


ATTACKS: dict[str, tuple[str, Callable[[Json, Json], None], str, str]] = {
    "cut short": ("chat of a story", cut_short, "rejected", "cut_short"),
    "past a stop string": ("chat of a story", past_a_stop_string, "rejected", "past_the_end"),
    "said to end with a call": ("chat", said_to_end_with_a_call, "rejected", "response_differs"),
    "echoed": ("chat", echoed, "rejected", "response_differs"),
    "also a message": ("chat", also_a_message, "rejected", "response_differs"),
    "thought up": ("chat", thought_up, "rejected", "response_differs"),
    "with log-probabilities": ("chat", with_logprobs, "rejected", "response_differs"),
    "refused": ("chat", refused, "rejected", "response_differs"),
    "annotated": ("chat", annotated, "undecided", "unknown_field"),
    "costly": ("chat", costly, "rejected", "response_differs"),
    "other token ids": ("chat", other_token_ids, "rejected", "response_differs"),
    "other arguments": ("chat with tools", other_arguments, "rejected", "response_differs"),
    "a search": ("response", a_search, "rejected", "response_differs"),
    "search results": ("message", search_results, "rejected", "response_differs"),
    "a less likely token": ("chat, log-probabilities", a_less_likely_token, "rejected", "logprobs_differ"),
    "another token": ("tokens", another_token, "rejected", "response_differs"),
    "another prompt": ("tokens", another_prompt, "rejected", "response_differs"),
    "a less likely token of tokens": ("tokens, log-probabilities", a_less_likely_token, "rejected", "logprobs_differ"),
    "under other weights": ("tokens", under_other_weights, "undecided", "not_bound"),
    "another alternative": ("chat, the likeliest five", another_alternative, "rejected", "response_differs"),
}
ASKED["chat of a story"] = (CHAT, {"messages": STORY, "temperature": 0, "max_tokens": 100})


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_answer_that_says_more_than_its_tokens(
    api: Api, answer: Callable[..., tuple[Json, Json]], attack: str
) -> None:
    """By its receipt too; and without one."""
    name, change, verdict, reason = ATTACKS[attack]
    request, response = copy.deepcopy(answer(name))
    change(request, response)
    assert api.report(response, **request)["verdict"] == "rejected"
    for choice in response[FIELD_NAME]["choices"]:
        del choice["receipt"]
    report = api.report(response, **request)
    assert (report["verdict"], response_of(report)["reason"]) == (verdict, reason), report


@pytest.mark.parametrize("name", ["chat of three choices", "chat that goes on", "completions of two prompts"])
def test_where_chunks_are_in_the_text(api: Api, answer: Callable[..., tuple[Json, Json]], name: str) -> None:
    request, response = answer(name)
    offsets = response_of(api.report(response, **request))["figures"]["chunk_offsets"]
    for choice, proven in zip(response["choices"], response[FIELD_NAME]["choices"], strict=True):
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        given = offsets[str(choice["index"])]
        assert len(given) == len(proven["proofs"]) + 1
        assert given == sorted(given)
        assert given[-1] == len(text)
        assert given[0] == (len("It is") if name == "chat that goes on" else 0)


def test_a_choice_without_proofs_hides_no_other(api: Api, answer: Callable[..., tuple[Json, Json]]) -> None:
    """Of which the server says that it has none: the others are held to their tokens, and what sums up all is not."""
    request, response = answer("chat of three choices")
    proven = response[FIELD_NAME]["choices"][1]
    del proven["proofs"], proven["receipt"]
    proven["error"] = {"code": "capture_slots_exhausted", "message": "…"}

    def outcome() -> dict[int | None, str]:
        checks = api.report(response, **request)["checks"]
        return {check["choice"]: check["status"] for check in checks if check["name"] == "response"}

    assert outcome() == {0: "passed", 2: "passed", None: "undecided"}
    proven["token_ids"] = [0]
    assert outcome() == {0: "passed", 2: "passed", None: "undecided"}
    response["choices"][2]["message"]["content"] = OTHER
    assert outcome() == {0: "passed", 2: "failed", None: "undecided"}


def test_choices_in_another_order(api: Api, answer: Callable[..., tuple[Json, Json]]) -> None:
    request, response = answer("chat of three choices")
    response["choices"].reverse()
    report = api.report(response, **request)
    assert response_of(report)["figures"]["path"].startswith("choices[0]")
    assert report["verdict"] == "rejected"


def test_what_is_rehearsed_is_said(api: Api) -> None:
    said = api.http.get("/v1/toploc").json()["response"]
    assert {"chat", "batch", "completion", "response", "message", "generate"} == {*said["routes"]}
    assert said["free"] == dict(FREE)


def test_a_rehearsal_leaves_nothing_behind(api: Api, answer: Callable[..., tuple[Json, Json]]) -> None:
    """No request in the engine but the prefill, and nothing to be fetched under the response's id."""
    request, response = answer("response")
    before = api.metric("vllm:request_success_total")
    for _ in range(5):
        assert api.report(response, **request)["verdict"] == "accepted"
    assert api.metric("vllm:request_success_total") - before == 5
    assert api.metric("vllm:num_requests_running") == 0
    assert api.http.get(f"/v1/responses/{response['id']}").status_code == 404


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_beyond_the_verifiers_context(api: Api, limit: str) -> None:
    """The provider's may be longer. An answer that stopped by itself fits; one that another limit cut does not."""
    honest, cut = (api.chat(SUM, temperature=0, **{limit: most}) for most in (500, 5))
    for response in (honest, cut):
        del response[FIELD_NAME]["choices"][0]["receipt"]  # which covers the limit
    assert honest["choices"][0]["finish_reason"] == "stop"
    report = api.report(honest, messages=SUM, temperature=0, **{limit: 100_000})
    assert report["verdict"] == "accepted", str(report)
    assert cut["choices"][0]["finish_reason"] == "length"
    report = api.report(cut, messages=SUM, temperature=0, **{limit: 100_000})
    assert (report["verdict"], response_of(report)["reason"]) == ("rejected", "cut_short"), report
