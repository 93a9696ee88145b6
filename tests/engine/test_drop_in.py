"""`toploc serve` beside `vllm serve` with the same flags: every reply is the same but for `toploc_proofs`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from models import corpus

if TYPE_CHECKING:
    import httpx
    from asking import Api

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
TOOLS = list(corpus.TOOLS.values())
FLAT_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "flag", "schema": {"enum": ["yes it is", "no it is not"]}}}
CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
GREEDY = {"temperature": 0}

# No figures of several prompts: computed in one step or in two, as they come, their sums are rounded otherwise.
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": QUESTION, **GREEDY}),
    "chat cut short, with ids": (CHAT, {"messages": STORY, "max_tokens": 40, "return_token_ids": True, **GREEDY}),
    "chat with log probabilities": (
        CHAT,
        {"messages": STORY, "max_tokens": 34, "logprobs": True, "top_logprobs": 3, **GREEDY},
    ),
    "chat with a stop string": (CHAT, {"messages": STORY, "stop": ["wind w"], **GREEDY}),
    "chat with a tool": (CHAT, {"messages": QUESTION, "tools": TOOLS, **GREEDY}),
    "chat with a schema": (CHAT, {"messages": QUESTION, "response_format": SCHEMA, **GREEDY}),
    "sampled chat with a seed": (CHAT, {"messages": STORY, "max_tokens": 40, "temperature": 1, "seed": 7}),
    "chat with log probabilities of the prompt": (
        CHAT,
        {"messages": STORY, "max_tokens": 2, "prompt_logprobs": 1, **GREEDY},
    ),
    "two choices with a seed": (CHAT, {"messages": STORY, "max_tokens": 20, "temperature": 1, "seed": 7, "n": 2}),
    "batch of chats": (f"{CHAT}/batch", {"messages": [QUESTION, STORY], "max_tokens": 20, **GREEDY}),
    "completion": (COMPLETIONS, {"prompt": "one two three four", "max_tokens": 20, **GREEDY}),
    "completions with echo": (
        COMPLETIONS,
        {"prompt": ["one two", "three four"], "max_tokens": 9, "echo": True, **GREEDY},
    ),
    "response": (RESPONSES, {"input": "What is 17 + 25?", "instructions": "Answer briefly.", **GREEDY}),
    "response with a tool": (RESPONSES, {"input": QUESTION, "tools": FLAT_TOOLS, **GREEDY}),
    "response cut short": (RESPONSES, {"input": STORY, "max_output_tokens": 33, **GREEDY}),
    "message": (MESSAGES, {"messages": QUESTION, "system": "Answer briefly.", "max_tokens": 50, **GREEDY}),
    "completion with echo": (
        COMPLETIONS,
        {"prompt": "one two", "max_tokens": 9, "echo": True, "logprobs": 2, **GREEDY},
    ),
    "scores": ("/generative_scoring", {"query": "one", "items": ["two"], "label_token_ids": [5, 6]}),
    "invocation": ("/invocations", {"messages": QUESTION, **GREEDY}),
}
SEVERAL = ("two choices with a seed", "batch of chats", "completions with echo")
# Not what vLLM streams in an order of its own, or not at all.
STREAMED = sorted(ANSWERS.keys() - {"chat with log probabilities of the prompt", *SEVERAL, "scores"})

OTHERS: dict[str, tuple[str, str, dict[str, Any] | bytes | None]] = {
    "models": ("GET", "/v1/models", None),
    "version": ("GET", "/version", None),
    "health": ("GET", "/health", None),
    "ping": ("POST", "/ping", None),
    "load": ("GET", "/load", None),
    "tokenize": ("POST", "/tokenize", {"messages": QUESTION, "return_token_strs": True}),
    "detokenize": ("POST", "/detokenize", {"tokens": [5, 6, 7]}),
    "rendered chat": ("POST", f"{CHAT}/render", {"messages": QUESTION}),
    "rendered completion": ("POST", f"{COMPLETIONS}/render", {"prompt": "one two"}),
    "count of tokens": ("POST", f"{MESSAGES}/count_tokens", {"messages": QUESTION}),
    "tokens in, tokens out, which is off": ("POST", "/inference/v1/generate", {"token_ids": [5]}),
    "no such model": ("POST", CHAT, {"messages": QUESTION, "model": "gpt-5"}),
    "no messages": ("POST", CHAT, {}),
    "no choice": ("POST", CHAT, {"messages": QUESTION, "n": 0}),
    "negative temperature": ("POST", CHAT, {"messages": QUESTION, "temperature": -1}),
    "beyond the context": ("POST", COMPLETIONS, {"prompt": "one two " * 3000, "max_tokens": 5}),
    "a stream beyond the context": ("POST", COMPLETIONS, {"prompt": "one two " * 3000, "stream": True}),
    "nothing to generate": ("POST", RESPONSES, {"input": []}),
    "unknown response": ("GET", f"{RESPONSES}/resp_0", None),
    "not JSON": ("POST", CHAT, b"{"),
    "not UTF-8": ("POST", CHAT, b'{"messages":"\xff"}'),
    "a list": ("POST", CHAT, b"[]"),
    "nested": ("POST", CHAT, b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "no such route": ("POST", "/v1/nowhere", {}),
    "no such method": ("GET", CHAT, None),
    "head": ("HEAD", "/v1/models", None),
    "options": ("OPTIONS", CHAT, None),
}

CLOCK = ("created", "created_at", "completed_at")
RANDOM = re.compile(r"(?<=[_-])[0-9a-f]{16,32}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def comparable(value: Any) -> Any:
    """Without what two runs of one server differ in, the time and random ids; fields stay in order."""
    if isinstance(value, dict):
        return {key: "time" if key in CLOCK and item is not None else comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return RANDOM.sub("random", value) if isinstance(value, str) else value


def take_proofs(value: dict[str, Any]) -> dict[str, Any] | None:
    """Removes the field, where it may be."""
    inner = value.get("response")
    found: dict[str, Any] | None = value.pop("toploc_proofs", None)
    return found or (inner.pop("toploc_proofs", None) if isinstance(inner, dict) else None)


def headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in ("date", "content-length")}


def ask(api: Api, name: str, **more: Any) -> httpx.Response:
    path, body = ANSWERS[name]
    # Another's prefix in the cache would change how sums are rounded.
    salt = {} if path == MESSAGES else {"cache_salt": f"{name} {more}"}
    response = api.http.post(path, json={"model": "toploc-mini", **body, **salt, **more})
    assert response.status_code == 200, response.text
    return response


def ordered(value: Any) -> str:
    return json.dumps(comparable(value), indent=1, ensure_ascii=False)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_the_same(api: Api, plain: Api, name: str) -> None:
    ours, theirs = ask(api, name), ask(plain, name)
    document = ours.json()
    field = take_proofs(document)
    # Nobody sees the tokens of scores.
    assert (field is None) is (name == "scores")
    assert all(choice["proofs"] for choice in (field or {"choices": []})["choices"])
    assert ordered(document) == ordered(theirs.json())
    assert headers(ours) == headers(theirs)
    assert int(ours.headers["content-length"]) == len(ours.content)


def events(response: httpx.Response) -> list[tuple[str | None, Any]]:
    """Name and data of every event."""
    assert response.text.endswith("\n\n")
    found = []
    for event in response.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        assert fields.keys() <= {"event", "data"}
        data = fields["data"]
        found.append((fields.get("event"), json.loads(data) if data.startswith("{") else data))
    return found


TEXTS = ("content", "delta", "text", "arguments", "partial_json")
PER_TOKEN = ("token_ids", "logprobs", "sequence_number")


def shape(value: Any) -> Any:
    """An event without what depends on how the answer was cut: vLLM puts tokens into one event that come while it
    writes the last."""
    if isinstance(value, dict):
        is_text = {key for key, item in value.items() if key in TEXTS and isinstance(item, str)}
        return {key: shape(item) for key, item in value.items() if key not in is_text.union(PER_TOKEN)}
    return [shape(item) for item in value] if isinstance(value, list) else value


def kinds(found: list[tuple[str | None, Any]]) -> list[str]:
    """What follows what, without the chunks that have nothing but a piece of text, and runs of alike events as one."""
    kept = [(name, shape(part)) for name, data in found for part in parts(data) if not is_piece(part)]
    shown = [f"{name} {ordered(data)}" for name, data in kept]
    return [one for i, one in enumerate(shown) if i == 0 or shown[i - 1] != one]


def parts(data: Any) -> list[Any]:
    """An event, or the piece and the end that one event has of a chat where both came while the last was written."""
    match data:
        case {"choices": [{"delta": {**piece}, "finish_reason": str()} as choice]} if piece:
            before = {key: value for key, value in choice.items() if key != "stop_reason"} | {"finish_reason": None}
            return [{**data, "choices": [before]}, {**data, "choices": [{**choice, "delta": {}}]}]
    return [data]


def is_piece(data: Any) -> bool:
    match data:
        case {"choices": [{"delta": {"tool_calls": [*calls], **others}, "finish_reason": None}]} if not others:
            return all(call.keys() == {"index", "function"} and [*call["function"]] == ["arguments"] for call in calls)
        case {"choices": [{"delta": {"content": str(), **others}, "finish_reason": None}]}:
            return not others.keys() - {"reasoning"}
        case {"choices": [{"text": str(), "finish_reason": None}]}:
            return True
    return False


def contents(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Everything in an event that is put together from pieces, in order."""
    if isinstance(value, list):
        return [part for item in value for part in contents(item, path)]
    if not isinstance(value, dict):
        return [(path, value)]
    return [part for key, item in value.items() for part in contents(item, f"{path}.{key}")]


def told(found: list[tuple[str | None, Any]]) -> dict[str, Any]:
    """What all events together say under each path, text joined."""
    said: dict[str, Any] = {}
    for _, data in found:
        for path, value in contents(comparable(data)):
            if path.rpartition(".")[2] in TEXTS:
                said[path] = said.get(path, "") + (value or "")
            elif value is not None and ("logprobs" in path or "token_ids" in path):
                said.setdefault(path, []).append(value)
    return said


@pytest.mark.parametrize("name", STREAMED)
def test_streams_are_the_same_event_by_event(api: Api, plain: Api, name: str) -> None:
    more: dict[str, Any] = {"stream": True}
    if ANSWERS[name][0] in (CHAT, COMPLETIONS):
        more["stream_options"] = {"include_usage": True}
    ours, theirs = ask(api, name, **more), ask(plain, name, **more)
    assert headers(ours) == headers(theirs)
    found, expected = events(ours), events(theirs)
    fields = [field for _, data in found if isinstance(data, dict) and (field := take_proofs(data))]
    assert fields
    assert all(choice["proofs"] for field in fields for choice in field["choices"])
    assert kinds(found) == kinds(expected)
    assert told(found) == told(expected)


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_is_the_same(api: Api, plain: Api, name: str) -> None:
    method, path, body = OTHERS[name]
    replies = []
    for server in (api, plain):
        content = body if isinstance(body, bytes) else json.dumps({"model": "toploc-mini", **(body or {})}).encode()
        sent = {"content": content, "headers": {"content-type": "application/json"}} if body is not None else {}
        reply = server.http.request(method, path, **sent)
        is_json = reply.headers.get("content-type") == "application/json" and method != "HEAD"
        replies.append((reply.status_code, headers(reply), ordered(reply.json()) if is_json else reply.text))
    assert replies[0] == replies[1]


def test_the_openapi_document_is_vllms_with_four_routes_more(api: Api, plain: Api) -> None:
    """So every request and response field of vLLM's is there as vLLM describes it."""
    ours, theirs = (server.http.get("/openapi.json").json() for server in (api, plain))
    added = {path: ours["paths"].pop(path) for path in list(ours["paths"]) if path.startswith("/v1/toploc")}
    kept = [f"/v1/toploc/{kind}/{{response_id}}" for kind in ("proofs", "receipts")]
    assert sorted(added) == ["/v1/toploc", *kept, "/v1/toploc/verify"]
    assert len(theirs["components"]["schemas"]) > 100
    assert ours == theirs


def test_every_metric_of_vllm_is_there(api: Api, plain: Api) -> None:
    def families(server: Api) -> set[str]:
        return set(re.findall(r"^# TYPE (\S+ \S+)$", server.http.get("/metrics").text, re.MULTILINE))

    ours, theirs = families(api), families(plain)
    assert len(theirs) > 50
    assert theirs <= ours
    assert all(family.startswith("toploc:") for family in ours - theirs)
