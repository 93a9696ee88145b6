"""Receipts of a real server, as clients of each route put their answers together."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from models import corpus
from toploc.checks.receipt import check_receipt
from toploc.evidence.assembly import Assembly
from toploc.evidence.parse import parse_evidence
from toploc.receipts.keys import parse_keys
from toploc.receipts.receipt import verify_receipt
from toploc.receipts.request import evidence_of

if TYPE_CHECKING:
    from pathlib import Path

    import openai
    from asking import Api

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


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream as it came over the wire, with the last of its fields."""
    assembly, fields = Assembly(), []
    for event in events:
        fields += [field] if (field := event.pop("toploc_proofs", None)) is not None else []
        assembly.add(event)
    return {**(assembly.response() or {}), "toploc_proofs": fields[-1] if fields else None}


def snapshot(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
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
def test_chats(api: Api, signing: Signing, kind: str, stream: bool) -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    request = {"model": NAME, **CHATS[kind], **(usage if stream else {})}
    path = "/v1/chat/completions"
    response = assembled(api.stream(path, **request)) if stream else api.post(path, **request)
    results = verify_receipt(request, response, [signing[1]])
    assert [result.reason for result in results] == [None] * CHATS[kind].get("n", 1)
    assert all(result.statement.output_sha256 for result in results)
    assert {result.uncovered for result in results} == {("usage",) if stream else ()}
    changed = copy.deepcopy(response)
    for choice in changed["choices"]:
        choice["message"]["content"] = (choice["message"]["content"] or "") + "x"
    assert {result.reason for result in verify_receipt(request, changed, [signing[1]])} == {"output_differs"}
    for choice in response["choices"]:
        choice["stop_reason"] = "something else"
    assert {result.reason for result in verify_receipt(request, response, [signing[1]])} == {"leaves_differ"}


@pytest.mark.parametrize("kind", ["plain", "tools", "stop string", "choices"])
def test_what_the_sdk_puts_together(client: openai.OpenAI, signing: Signing, kind: str) -> None:
    """Its snapshot of a stream drops the reason to stop, so it is only a part of what was signed."""
    request = {"model": NAME, **CHATS[kind], "stream": True}
    response = snapshot(client, request)
    part = verify_receipt(request, response, [signing[1]], partial=True)
    assert {(result.reason, result.uncovered) for result in part} == {(None, ("leaves",))}
    whole = {result.reason for result in verify_receipt(request, response, [signing[1]])}
    assert whole == ({"leaves_differ"} if kind == "stop string" else {None})


def test_several_prompts(api: Api, signing: Signing) -> None:
    body: dict[str, Any] = {"prompt": ["one, two", "January"], "n": 2, "max_tokens": 20, "ignore_eos": True}
    response = api.post("/v1/completions", **body)
    request = {"model": NAME, **body}
    assert [r.reason for r in verify_receipt(request, response, [signing[1]])] == [None] * 4
    text = json.dumps({"request": request, "response": response})
    checks = check_receipt(parse_evidence(text), [signing[1]])
    assert [(check.status, check.choice) for check in checks] == [("passed", i) for i in range(4)]
    events = api.stream("/v1/completions", **body, echo=True)
    response = assembled(events)
    results = verify_receipt({**request, "echo": True, "stream": True}, response, [signing[1]])
    assert [(r.reason, bool(r.statement.output_sha256), r.uncovered) for r in results] == [(None, True, ())] * 4


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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_routes(api: Api, signing: Signing, kind: str, stream: bool) -> None:
    path, body = OTHERS[kind]
    if not stream:
        response = api.post(path, **body)
    else:
        events = api.stream(path, **body)
        response = events[-1]["response"] if path == "/v1/responses" else assembled(events)
    request = {"model": NAME, **body, **({"stream": True} if stream else {})}
    [result] = verify_receipt(request, response, [signing[1]])
    assert (result.reason, bool(result.statement.output_sha256), result.uncovered) == (None, True, ())
    assert result.statement.response_id == response["id"]
    shown = json.dumps(response.get("output", response.get("content")))
    assert ('"add"' in shown) == ("tool" in kind)  # an id may have those letters too
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
