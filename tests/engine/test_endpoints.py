"""Every route that generates, alone and all at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from models import corpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from asking import Api

    from toploc.protocol import ToplocProofs
    from toploc.verifier.prefill import TransformersPrefill

QUESTION = "What is 17 + 25?"
SUM = [{"role": "user", "content": QUESTION}]
BRIEF = [{"role": "system", "content": "Answer briefly."}, *SUM]
STORY = [{"role": "user", "content": "Tell me a story."}]
TOOLS = list(corpus.TOOLS.values())
FLAT_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]
BASE = {"temperature": 0}


def response_object(api: Api, *, stream: bool, **body: Any) -> dict[str, Any]:
    """The object of /v1/responses; from a stream, that of its last event."""
    if not stream:
        return api.post("/v1/responses", **body)
    events = api.stream("/v1/responses", **body)
    assert not any("toploc_proofs" in event for event in events)
    [last] = [event for event in events if "toploc_proofs" in event.get("response", {})]
    assert last is events[-1]
    return last["response"]


@pytest.mark.parametrize("stream", [False, True])
def test_responses(api: Api, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    response = response_object(api, stream=stream, input=QUESTION, instructions="Answer briefly.", **BASE)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "42."
    verified(response["toploc_proofs"], BRIEF)


@pytest.mark.parametrize("stream", [False, True])
def test_responses_cut_short(api: Api, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    response = response_object(api, stream=stream, input=STORY, max_output_tokens=33, **BASE)
    assert response["status"] == "incomplete"
    assert len(verified(response["toploc_proofs"], STORY).choices[0].token_ids) == 33


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_a_tool_turn(api: Api, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    """The client runs the tool and asks again with its result."""
    body: dict[str, Any] = {"stream": stream, "tools": FLAT_TOOLS, **BASE}
    response = response_object(api, input=SUM, **body)
    [call] = response["output"]
    assert (call["type"], call["name"]) == ("function_call", "add")
    verified(response["toploc_proofs"], SUM, tools=TOOLS)
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}
    response = response_object(api, input=[*SUM, call, result], toploc={"prompt_token_ids": True}, **body)
    assert "42" in response["output"][0]["content"][0]["text"]
    verified(response["toploc_proofs"], response["toploc_proofs"]["prompt"]["token_ids"])


@pytest.mark.parametrize("stream", [False, True])
def test_messages(api: Api, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    body: dict[str, Any] = {"messages": SUM, "system": "Answer briefly.", "max_tokens": 50, **BASE}
    if stream:
        events = api.stream("/v1/messages", **body)
        [event] = [event for event in events if "toploc_proofs" in event]
        assert (event["type"], event["delta"]["stop_reason"]) == ("message_delta", "end_turn")
        field = event["toploc_proofs"]
    else:
        response = api.post("/v1/messages", **body)
        assert response["content"] == [{"type": "text", "text": "42."}]
        field = response["toploc_proofs"]
    verified(field, BRIEF)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", ["max_tokens", "stop_sequence", "tool_use"])
def test_messages_end(
    api: Api, prefill: TransformersPrefill, verified: Callable[..., ToplocProofs], ending: str, stream: bool
) -> None:
    tools = [
        {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
        for f in (tool["function"] for tool in TOOLS)
    ]
    messages, options, template = {
        "max_tokens": (STORY, {"max_tokens": 33}, {}),
        "stop_sequence": (STORY, {"max_tokens": 200, "stop_sequences": ["wind w"]}, {}),
        "tool_use": (SUM, {"max_tokens": 200, "tools": tools}, {"tools": TOOLS}),
    }[ending]
    if stream:
        events = api.stream("/v1/messages", messages=messages, **options, **BASE)
        [event] = [event for event in events if "toploc_proofs" in event]
        reason, field = event["delta"]["stop_reason"], event["toploc_proofs"]
    else:
        response = api.post("/v1/messages", messages=messages, **options, **BASE)
        reason, field = response["stop_reason"], response["toploc_proofs"]
    assert reason == ending
    [choice] = verified(field, messages, **template).choices
    assert ending != "stop_sequence" or "wind w" in prefill.tokenizer.decode(choice.token_ids)


FORGED: list[Any] = ["toploc", 1, ["nonce", "0" * 32]]


@pytest.mark.parametrize("value", FORGED)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_client_cannot_put_a_tag_of_its_own(
    api: Api, prefill: TransformersPrefill, verified: Callable[..., ToplocProofs], path: str, value: Any
) -> None:
    ids = prefill.tokenizer("one two three")["input_ids"]
    said: dict[str, Any] = {"messages": SUM} if "chat" in path else {"prompt": ids}
    body = {"max_tokens": 40, "vllm_xargs": {"toploc": value, "nonce": "0" * 32, "mac": "0" * 64}, **said, **BASE}
    verified(api.post(path, **body)["toploc_proofs"], SUM if "chat" in path else ids)
    assert "toploc_proofs" not in api.post(path, **body, toploc={"enabled": False})


def test_requests_of_one_id_get_their_own_proofs(api: Api, verified: Callable[..., ToplocProofs]) -> None:
    """Clients choose ids; many that choose the same at once learn nothing of each other."""
    prompts = [[{"role": "user", "content": f"What is 17 + {i}?"}] for i in range(12)]

    def ask(prompt: Any) -> dict[str, Any]:
        body = {"model": "toploc-mini", "messages": prompt, "request_id": "same", "max_tokens": 40, **BASE}
        response = api.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "same"})
        assert response.status_code == 200, response.text
        return response.json()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, prompts))
    assert len({answer["id"] for answer in answers}) == 1
    for answer, prompt in zip(answers, prompts, strict=True):
        verified(answer["toploc_proofs"], prompt)
    listed = api.http.get(f"/v1/toploc/receipts/{answers[0]['id']}").text
    assert listed.count("response_id") >= 12
    assert not any(key in listed for key in ('"token_ids"', '"proofs":', '"content"'))


def test_batch_of_chats(api: Api, verified: Callable[..., ToplocProofs]) -> None:
    chats = [SUM, BRIEF, STORY]
    response = api.post("/v1/chat/completions/batch", messages=chats, max_tokens=70, **BASE)
    assert len(verified(response["toploc_proofs"], *chats).choices) == len(response["choices"]) == 3


def test_all_at_once(api: Api, prefill: TransformersPrefill, verified: Callable[..., ToplocProofs]) -> None:
    """Every route, streamed and not, with mixed lengths, 120 requests on 32 places in the batch."""
    chat, long_text = "/v1/chat/completions", "one two three four " * 100
    long = [{"role": "user", "content": long_text}]
    sampled: dict[str, Any] = {"temperature": 1, "ignore_eos": True}
    ids = prefill.tokenizer(long_text)["input_ids"]
    schema = {"type": "json_schema", "json_schema": {"name": "flag", "schema": {"enum": ["yes it is", "no it is not"]}}}
    kinds: list[tuple[str, dict[str, Any], list[Any], dict[str, Any]]] = [
        (chat, {"messages": STORY, "n": 3, "max_tokens": 65, **sampled}, [STORY], {}),
        (chat, {"messages": long, "max_tokens": 50, "prompt_logprobs": 1, **sampled}, [long], {}),
        (chat, {"messages": STORY, "stop": ["wind w"], **BASE}, [STORY], {}),
        (chat, {"messages": SUM, "tools": TOOLS, **BASE}, [SUM], {"tools": TOOLS}),
        (chat, {"messages": SUM, "response_format": schema, **BASE}, [SUM], {}),
        ("/v1/completions", {"prompt": [ids, ids[:7]], "max_tokens": 33, **sampled}, [ids, ids[:7]], {}),
        ("/v1/completions", {"prompt": long_text, "max_tokens": 1, "echo": True}, [ids], {}),
        ("/v1/responses", {"input": QUESTION, "instructions": "Answer briefly.", **BASE}, [BRIEF], {}),
        ("/v1/messages", {"messages": STORY, "max_tokens": 90, **BASE}, [STORY], {}),
        ("/v1/chat/completions/batch", {"messages": [SUM, STORY], "max_tokens": 40, **BASE}, [SUM, STORY], {}),
    ]

    def ask(number: int) -> list[dict[str, Any]]:
        path, body, _, _ = kinds[number % len(kinds)]
        # vLLM streams neither.
        if number // len(kinds) % 2 == 0 or path.endswith("batch") or "prompt_logprobs" in body:
            return [api.post(path, **body)["toploc_proofs"]]
        events = [event.get("response", event) for event in api.stream(path, **body)]
        return [event["toploc_proofs"] for event in events if "toploc_proofs" in event][-1:]

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(120)))
    seen = 0
    for number, fields in enumerate(answers):
        _, _, prompts, template = kinds[number % len(kinds)]
        for field in fields:
            seen += len(verified(field, *prompts, **template).choices)
    per_round = sum(body.get("n", 1) * len(prompts) for _, body, prompts, _ in kinds)
    assert seen == 12 * per_round
