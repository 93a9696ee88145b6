"""Receipts of a real server, as clients of each route put their answers together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from models import corpus
from toploc.checks.receipt import check_receipt
from toploc.evidence.parse import parse_evidence
from toploc.receipts.keys import parse_keys
from toploc.receipts.receipt import verify_receipt
from toploc.receipts.request import evidence_of

if TYPE_CHECKING:
    from pathlib import Path

    import openai
    from conftest import Api

    from toploc.receipts.keys import PublicKey

    Signing = tuple[Path, PublicKey]

NAME = "toploc-mini"
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
CHATS: dict[str, dict[str, Any]] = {
    "plain": {"messages": SUM, "temperature": 0.0, "max_tokens": 60},
    "tools": {"messages": SUM, "temperature": 0, "tools": list(corpus.TOOLS.values())},
    "stop string": {"messages": STORY, "temperature": 0, "stop": ["wind w"], "max_tokens": 200},
    "echo": {"messages": STORY, "echo": True, "max_tokens": 20, "ignore_eos": True},
    "special tokens": {"messages": SUM, "skip_special_tokens": False, "max_tokens": 40},
    "choices": {"messages": STORY, "n": 3, "max_tokens": 40, "ignore_eos": True, "logprobs": True},
}


def streamed(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    """A chat completion put together by the SDK, and its field by hand: the last has all choices."""
    known = {"messages", "tools", "stop", "max_tokens", "temperature", "n", "logprobs"}
    extra = {name: value for name, value in request.items() if name not in {*known, "model", "stream"}}
    state, fields = ChatCompletionStreamState(), []
    for chunk in client.chat.completions.create(
        model=NAME, stream=True, extra_body=extra, **{name: request[name] for name in known & request.keys()}
    ):
        fields += [chunk.toploc_proofs] if "toploc_proofs" in (chunk.model_extra or {}) else []
        state.handle_chunk(chunk)
    # `get_final_completion` refuses answers that ended by length.
    response = state.current_completion_snapshot.model_dump()
    return {**response, "toploc_proofs": fields[-1]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CHATS)
def test_chats(client: openai.OpenAI, api: Api, signing: Signing, kind: str, stream: bool) -> None:
    request = {"model": NAME, **CHATS[kind], **({"stream": True} if stream else {})}
    if stream:
        response = streamed(client, request)
    else:
        response = api.chat(CHATS[kind]["messages"], **{k: v for k, v in CHATS[kind].items() if k != "messages"})
    results = verify_receipt(request, response, [signing[1]])
    assert [result.reason for result in results] == [None] * CHATS[kind].get("n", 1)
    assert all(result.statement.output_sha256 for result in results)
    for choice in response["choices"]:
        choice["message"]["content"] = (choice["message"]["content"] or "") + "x"
    assert {result.reason for result in verify_receipt(request, response, [signing[1]])} == {"output_differs"}


def test_several_prompts(api: Api, signing: Signing) -> None:
    body: dict[str, Any] = {"prompt": ["one, two", "January"], "n": 2, "max_tokens": 20, "ignore_eos": True}
    response = api.post("/v1/completions", **body)
    request = {"model": NAME, **body}
    assert [r.reason for r in verify_receipt(request, response, [signing[1]])] == [None] * 4
    text = json.dumps({"request": request, "response": response})
    checks = check_receipt(parse_evidence(text), [signing[1]])
    assert [(check.status, check.choice) for check in checks] == [("passed", i) for i in range(4)]
    events = api.stream("/v1/completions", **body, echo=True)
    fields = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
    texts = ["".join(c["text"] for e in events for c in e["choices"] if c["index"] == i) for i in range(4)]
    for choice in fields[-1]["choices"]:
        field = {**fields[-1], "prompt": choice.get("prompt", fields[-1]["prompt"]), "choices": [choice]}
        shown = {"index": choice["index"], "text": texts[choice["index"]], "finish_reason": "length"}
        answer = {**events[0], "choices": [shown], "toploc_proofs": field}
        result = verify_receipt({**request, "echo": True, "stream": True}, answer, [signing[1]])[0]
        assert (result.reason, bool(result.statement.output_sha256)) == (None, True)


TOOLS = list(corpus.TOOLS.values())
FLAT = [{"type": "function", **tool["function"]} for tool in TOOLS]
ANTHROPIC = [
    {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]} for tool in FLAT
]
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "message": ("/v1/messages", {"messages": SUM, "max_tokens": 50}),
    "message with a tool": ("/v1/messages", {"messages": SUM, "max_tokens": 90, "temperature": 0, "tools": ANTHROPIC}),
    "response": ("/v1/responses", {"input": "What is 17 + 25?"}),
    "response cut short": ("/v1/responses", {"input": STORY, "max_output_tokens": 33}),
    "response with a tool": ("/v1/responses", {"input": SUM, "temperature": 0, "tools": FLAT}),
}


def message_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """A message put together from its events, as its SDK does."""
    message: dict[str, Any] = dict(events[0]["message"])
    blocks: list[dict[str, Any]] = []
    for event in events:
        delta = event.get("delta", {})
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "partial": ""})
        elif event["type"] == "content_block_delta" and delta["type"] == "text_delta":
            blocks[event["index"]]["text"] += delta["text"]
        elif event["type"] == "content_block_delta":
            blocks[event["index"]]["partial"] += delta["partial_json"]
        elif event["type"] == "message_delta":
            message |= {"stop_reason": delta["stop_reason"], "toploc_proofs": event["toploc_proofs"]}
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["partial"])
    return {**message, "content": blocks}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_routes(api: Api, signing: Signing, kind: str, stream: bool) -> None:
    path, body = OTHERS[kind]
    if not stream:
        response = api.post(path, **body)
    else:
        events = api.stream(path, **body)
        response = events[-1]["response"] if path == "/v1/responses" else message_of(events)
    request = {"model": NAME, **body, **({"stream": True} if stream else {})}
    [result] = verify_receipt(request, response, [signing[1]])
    assert (result.reason, bool(result.statement.output_sha256)) == (None, True)
    assert result.statement.response_id == response["id"]
    shown = json.dumps(response.get("output", response.get("content")))
    assert ("add" in shown) == ("tool" in kind)
    found = api.http.get(f"/v1/toploc/receipts/{response['id']}").json()["receipts"]
    assert found == [response["toploc_proofs"]["choices"][0]["receipt"]]


def test_reports_show_them(api: Api) -> None:
    request = {"model": NAME, **CHATS["plain"]}
    response = api.post("/v1/chat/completions", **request)

    def checked(response: Any) -> tuple[str, str, str | None]:
        report = api.http.post("/v1/toploc/verify", json={"request": request, "response": response}).json()
        [check] = [check for check in report["checks"] if check["name"] == "receipt"]
        return report["verdict"], check["status"], check["reason"]

    assert checked(response) == ("accepted", "passed", None)
    assert checked({**response, "id": "chatcmpl-another"}) == ("rejected", "failed", "response_differs")
    del response["toploc_proofs"]["choices"][0]["receipt"]
    assert checked(response) == ("accepted", "skipped", "no_receipt")


def test_a_large_seed(api: Api, signing: Signing) -> None:
    """The exact body tells which request was signed, and nothing else does; another question is another request."""
    request = {"model": NAME, **CHATS["plain"], "seed": 2**60}
    body = json.dumps(request, indent=1).encode()
    headers = {"content-type": "application/json"}
    response = api.http.post("/v1/chat/completions", content=body, headers=headers).json()

    def checked(evidence: bytes) -> tuple[str, str, str | None]:
        report = api.http.post("/v1/toploc/verify", content=evidence, headers=headers).json()
        [check] = [check for check in report["checks"] if check["name"] == "receipt"]
        return report["verdict"], check["status"], check["reason"]

    answer = json.dumps(response).encode()
    assert checked(evidence_of(body, answer)) == ("accepted", "passed", None)
    alone = json.dumps({"request": request, "response": response}).encode()
    assert checked(alone) == ("accepted", "skipped", "request_unknown")
    other = {**request, "messages": STORY}
    swapped = checked(evidence_of(json.dumps(other).encode(), answer))
    assert swapped == ("rejected", "failed", "request_differs")
    assert verify_receipt(request, response, [signing[1]], body)[0].request == "exact"


def test_keys_are_published(api: Api, signing: Signing) -> None:
    assert parse_keys(api.http.get("/v1/toploc").json()) == (signing[1],)
    assert api.metric("toploc:receipts_total") > 0
