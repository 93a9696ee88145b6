"""The recordings show every kind of answer that the routes give, and each is evidence with as many proofs as it should.

`KINDS` says of each kind what shows it, and where. `record.py` makes the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toploc.evidence.parse import parse_evidence
from toploc.proofs.format import decode_proof
from toploc.protocol import FIELD_NAME, num_chunks, token_ids_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parent
OLD = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
ROUTES = {path.stem: path for path in sorted(FOLDER.glob("routes/*/*.json"))}
RECORDED = {**OLD, **ROUTES}

LEAST = 60
LARGEST, LARGEST_TOGETHER = 40_000, 1_500_000
"""Bytes of one file, and of all."""

Json = dict[str, Any]


def load(name: str) -> tuple[Json, Json]:
    evidence = json.loads(RECORDED[name].read_text("utf-8"))
    return evidence["request"], evidence["response"]


def outputs(response: Json) -> list[Json]:
    """The choices of chats, batches and completions, the items of a response, the blocks of a message."""
    found: list[Json] = response.get("choices") or response.get("output") or response.get("content") or []
    return found


def texts(response: Json) -> str:
    """All that was said, without calls and thoughts."""

    def parts() -> Iterator[str | None]:
        for output in outputs(response):
            yield output.get("text")
            yield output.get("message", {}).get("content")
            if output.get("type") == "message":
                yield from (part["text"] for part in output["content"])

    return "".join(part or "" for part in parts())


def calls(response: Json) -> list[Json]:
    made = [call for output in outputs(response) for call in output.get("message", {}).get("tool_calls") or []]
    return made + [output for output in outputs(response) if output.get("type") in ("function_call", "tool_use")]


def thoughts(response: Json) -> list[str]:
    """What was thought, by choice or item."""

    def parts() -> Iterator[str | None]:
        for output in outputs(response):
            yield output.get("message", {}).get("reasoning")
            yield output.get("thinking")
            if output.get("type") == "reasoning":
                yield output["content"][0]["text"]

    return [part for part in parts() if part]


def ends(response: Json) -> set[str | None]:
    """Reasons, by any of their names."""
    said = {choice["finish_reason"] for choice in response.get("choices", ())}
    cut = response.get("incomplete_details")
    return (said | {response.get("stop_reason"), response.get("status"), cut and cut["reason"]}) - {None}


def stopped_by(response: Json) -> set[Any]:
    by = {choice.get("stop_reason") for choice in response.get("choices", ())} | {response.get("stop_sequence")}
    return by - {None}


def lengths(response: Json) -> list[int]:
    """Tokens of each proven choice."""
    return [len(choice["token_ids"]) for choice in response[FIELD_NAME]["choices"]]


def logprobs(response: Json) -> bool:
    items = [part for output in outputs(response) for part in output.get("content") or () if output.get("type")]
    return any(holder.get("logprobs") for holder in [*outputs(response), *items])


def types(response: Json) -> list[str]:
    return [output["type"] for output in outputs(response)]


def asks(option: str) -> Callable[[Json, Json], bool]:
    return lambda request, _: option in request


KINDS: dict[str, tuple[Callable[[Json, Json], Any], str]] = {
    "a tool of its own choice": (
        lambda q, r: q["tools"] and "tool_choice" not in q and len(calls(r)) == 1,
        (
            "tool-call chat-tool-auto chat-tool-auto-stream response-function-call response-function-call-stream "
            "message-tool-use message-tool-use-stream"
        ),
    ),
    "some tool required": (
        lambda q, r: q["tool_choice"] in ("required", {"type": "any"}) and calls(r),
        (
            "chat-tool-required chat-tool-required-stream response-function-required message-tool-any "
            "message-tool-any-stream"
        ),
    ),
    "one tool required": (
        lambda q, r: "add" in json.dumps(q["tool_choice"]) and calls(r),
        "chat-tool-named chat-tool-named-stream response-function-named message-tool-named",
    ),
    "tools in parallel": (
        lambda _, r: len(calls(r)) == 2,
        "chat-tools-parallel chat-tools-parallel-stream response-functions-parallel response-functions-parallel-stream",
    ),
    "text and a tool": (
        lambda _, r: calls(r) and texts(r),
        "chat-tool-and-text chat-tool-and-text-stream response-text-and-function response-text-and-function-stream",
    ),
    "tools, none called": (
        lambda q, r: q["tools"] and not calls(r) and texts(r),
        (
            "chat-tool-not-called chat-tool-choice-none chat-tool-result response-items response-items-stream "
            "message-tool-result response-tool-unused"
        ),
    ),
    "a call cut short": (
        lambda q, r: q["tools"] and ends(r) == {"length"},
        "chat-tool-cut chat-tool-cut-stream",
    ),
    "a tool that the server ran": (
        lambda _, r: types(r) == ["mcp_call", "message"] and len(lengths(r)) == 2,
        "response-tool-turn",
    ),
    "reasoning": (
        lambda _, r: thoughts(r) and texts(r),
        (
            "chat-reasoning chat-reasoning-stream chat-reasoning-logprobs batch-reasoning response-reasoning "
            "response-reasoning-stream message-thinking message-thinking-stream"
        ),
    ),
    "reasoning of several choices": (
        lambda _, r: len(thoughts(r)) == 3,
        "chat-reasoning-choices chat-reasoning-choices-stream",
    ),
    "reasoning and a tool": (
        lambda _, r: thoughts(r) and calls(r),
        "chat-reasoning-tool chat-reasoning-tool-stream response-reasoning-function response-reasoning-function-stream",
    ),
    "reasoning cut short": (
        lambda _, r: thoughts(r) and not texts(r) and ends(r) & {"length", "max_tokens", "max_output_tokens"},
        "chat-reasoning-cut chat-reasoning-cut-stream response-reasoning-cut message-thinking-cut",
    ),
    "reasoning left out": (
        lambda q, r: q["include_reasoning"] is False and not thoughts(r) and texts(r),
        "chat-reasoning-hidden chat-reasoning-hidden-stream",
    ),
    "log-probabilities": (
        lambda _, r: logprobs(r),
        (
            "chat-logprobs chat-logprobs-stream chat-logprobs-sampled chat-logprobs-as-ids chat-three-choices-logprobs "
            "chat-three-choices-logprobs-stream chat-reasoning-logprobs batch-logprobs completion-logprobs "
            "completion-logprobs-of-token completion-echo-logprobs response-logprobs response-logprobs-stream"
        ),
    ),
    "log-probabilities that were asked of a stream": (asks("logprobs"), "completion-logprobs-stream"),
    "log-probabilities of the prompt": (
        lambda _, r: r.get("prompt_logprobs") or r["choices"][0].get("prompt_logprobs"),
        "chat-prompt-logprobs completion-prompt-logprobs",
    ),
    "several choices": (
        lambda q, r: len(r["choices"]) == q["n"] > 1,
        (
            "two-choices chat-three-choices chat-three-choices-stream chat-three-choices-seeded "
            "completion-three-choices completion-three-choices-stream"
        ),
    ),
    "the best of several": (asks("best_of"), "completion-best-of"),
    "several prompts": (
        lambda q, r: len(r["choices"]) == len(q["prompt"]) * q.get("n", 1) > 1,
        "completion-many completion-several-prompts completion-several-prompts-stream completion-several-ids",
    ),
    "several conversations": (
        lambda q, r: len(r["choices"]) == len(q["messages"]) > 1,
        "chat-batch batch-logprobs batch-json-schema batch-stop batch-token-ids batch-sampled batch-reasoning",
    ),
    "one conversation of a batch": (lambda q, r: len(r["choices"]) == len(q["messages"]), "batch-one"),
    "JSON of a schema": (
        lambda _, r: texts(r).startswith("{") and '"sure"' in texts(r),
        (
            "chat-json-schema chat-json-schema-stream batch-json-schema completion-json-schema response-json-schema "
            "response-json-schema-stream message-json-schema message-json-schema-stream"
        ),
    ),
    "JSON": (lambda q, _: q["response_format"] == {"type": "json_object"}, "chat-json-object"),
    "a regular expression or a choice": (asks("structured_outputs"), "structured chat-regex chat-unicode"),
    "a stop string": (
        lambda q, r: stopped_by(r) & {*q.get("stop", ()), *q.get("stop_sequences", ())},
        "stop-string chat-stop batch-stop completion-stop message-stop-sequence message-stop-sequence-stream",
    ),
    "a stop string, which the answer does not say": (
        lambda q, r: ends(r) & {"stop", "completed"} and not any(word in texts(r) for word in q["stop"]),
        "chat-stop-stream completion-stop-stream response-stop response-stop-stream",
    ),
    "a stop string in the text": (
        lambda q, r: q["include_stop_str_in_output"] and ("wind w" in texts(r) or "sun w" in texts(r)),
        "stop-string-included chat-stop-included chat-stop-included-stream completion-stop-included",
    ),
    "a stop token": (
        lambda q, r: r[FIELD_NAME]["choices"][0]["token_ids"][-1] in q["stop_token_ids"] and ends(r) >= {"stop"},
        "stop-token chat-stop-token chat-stop-token-stream completion-stop-token completion-stop-token-stream",
    ),
    "length": (
        lambda _, r: ends(r) & {"length", "max_tokens", "max_output_tokens"},
        "chat-length chat-length-stream response-cut response-cut-stream message-max-tokens message-max-tokens-stream",
    ),
    "one token": (
        lambda _, r: lengths(r) == [1] and texts(r),
        "chat-one-token chat-one-token-stream completion-one-token response-one-token message-one-token",
    ),
    "no text": (
        lambda _, r: lengths(r) == [1] and not texts(r),
        "chat-empty chat-empty-stream completion-empty completion-empty-stream",
    ),
    "several chunks": (
        lambda _, r: lengths(r)[0] > 4 * 32,
        "chat-long chat-long-stream completion-long completion-long-stream",
    ),
    "a least length": (asks("min_tokens"), "greedy-min-tokens chat-min-tokens"),
    "beyond the end of the turn": (
        lambda _, r: 5 in r[FIELD_NAME]["choices"][0]["token_ids"][:-1],
        "chat-ignore-eos",
    ),
    "repetition": (lambda _, r: ends(r) == {"repetition"}, "chat-repetition"),
    "echo": (
        lambda q, _: q["echo"],
        (
            "completion-echo completion-echo-logprobs completion-echo-ids completion-echo-ids-stream chat-continued "
            "chat-continued-stream"
        ),
    ),
    "a seed": (
        asks("seed"),
        (
            "seeded chat-seeded chat-seeded-stream chat-three-choices-seeded batch-sampled completion-seeded "
            "completion-several-ids response-sampled"
        ),
    ),
    "penalties": (
        lambda q, _: {name for name in q if name.endswith("_penalty")},
        "greedy-penalties chat-penalties completion-penalties",
    ),
    "sampling from the likeliest": (
        lambda q, _: q.keys() >= {"top_k", "top_p"} and q["temperature"],
        "sampled-truncated chat-truncated-sampling completion-seeded response-sampled message-sampled",
    ),
    "bias": (asks("logit_bias"), "greedy-penalties chat-logit-bias completion-logit-bias chat-empty"),
    "words that may not be said": (asks("bad_words"), "chat-bad-words"),
    "token ids in the response": (
        lambda _, r: all(choice["token_ids"] for choice in r["choices"]),
        "chat-token-ids batch-token-ids completion-ids-token-ids",
    ),
    "token ids that were asked of a stream": (
        asks("return_token_ids"),
        "chat-token-ids-stream completion-ids-token-ids-stream",
    ),
    "messages in the response": (lambda _, r: r["input_messages"] and r["output_messages"], "response-messages"),
    "special tokens in the text": (
        lambda _, r: "<|end|>" in texts(r),
        "chat-special-tokens chat-special-tokens-stream completion-special-tokens response-special-tokens",
    ),
    "emoji": (
        lambda _, r: "🙂🇫🇷 漢字" in texts(r),
        "chat-unicode chat-unicode-stream completion-unicode completion-unicode-stream response-unicode",
    ),
    "broken characters": (
        lambda _, r: "�" in texts(r),
        (
            "chat-broken-characters chat-broken-characters-stream completion-broken-characters "
            "completion-broken-characters-stream"
        ),
    ),
    "a prompt of ids": (
        lambda q, _: not isinstance(q["prompt"][0], str),
        "completion-ids completion-ids-token-ids completion-several-ids completion-echo-ids",
    ),
    "a prompt cut short": (
        lambda q, r: r[FIELD_NAME]["prompt"]["num_tokens"] == q["truncate_prompt_tokens"],
        "chat-truncated-prompt completion-truncated-prompt",
    ),
    "metadata": (asks("metadata"), "chat-metadata response-metadata message-system-blocks"),
    "whole numbers with a point": (lambda q, _: isinstance(q["max_tokens"], float), "chat-whole-floats"),
    "a conversation": (
        lambda q, _: len(q.get("messages") or q["input"]) > 2,
        "chat-conversation response-conversation message-conversation",
    ),
    "instructions": (
        lambda q, r: r["instructions"] == q["instructions"],
        "response-instructions response-instructions-stream response-first",
    ),
    "items in the request": (
        lambda q, _: {item["type"] for item in q["input"]} >= {"message", "reasoning", "function_call"},
        "response-items response-items-stream",
    ),
    "a response that was given before": (
        lambda q, r: r["previous_response_id"] == q["previous_response_id"] == load("response-first")[1]["id"],
        "response-previous response-previous-stream",
    ),
    "reasoning, then a message": (
        lambda _, r: types(r) == ["reasoning", "message"],
        "response-reasoning response-reasoning-stream",
    ),
    "reasoning, then a call": (
        lambda _, r: types(r) == ["reasoning", "function_call"],
        "response-reasoning-function response-reasoning-function-stream",
    ),
    "thinking, then text": (lambda _, r: types(r) == ["thinking", "text"], "message-thinking"),
    "text, thinking, text": (lambda _, r: types(r) == ["text", "thinking", "text"], "message-thinking-stream"),
    "a system prompt": (lambda q, _: isinstance(q["system"], str), "message-text message-text-stream"),
    "a system prompt of blocks": (lambda q, _: len(q["system"]) == 2, "message-system-blocks"),
    "a question of blocks": (lambda q, _: len(q["messages"][0]["content"]) == 2, "message-blocks"),
    "tokens for tokens": (
        lambda q, r: q["token_ids"] and r["choices"][0]["token_ids"] == r[FIELD_NAME]["choices"][0]["token_ids"],
        (
            "generate-ids generate-ids-stream generate-logprobs generate-logprobs-stream generate-prompt-logprobs "
            "generate-three-choices generate-three-choices-stream generate-text generate-text-stream "
            "generate-stop-token generate-own-end"
        ),
    ),
    "tokens with their text": (
        lambda q, r: q["output_mode"] == r["output_mode"] == "text" and texts(r),
        "generate-text generate-text-stream",
    ),
    "log-probabilities of the prompt's tokens": (lambda _, r: r["prompt_logprobs"], "generate-prompt-logprobs"),
    "usage at the end of a stream": (lambda q, r: q["stream_options"] and r["usage"], "chat-usage-stream"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str) -> None:
    shows, names = KINDS[kind]
    for name in names.split():
        assert shows(*load(name)), name


def test_every_recording_of_a_route_is_of_some_kind() -> None:
    named = {name for _, names in KINDS.values() for name in names.split()}
    assert set(ROUTES) <= named <= set(RECORDED)
    assert not set(OLD) & set(ROUTES)


def test_how_many_and_how_large() -> None:
    sizes = {name: path.stat().st_size for name, path in RECORDED.items()}
    assert len(sizes) >= LEAST
    assert max(sizes.values()) <= LARGEST
    assert sum(sizes.values()) <= LARGEST_TOGETHER


@pytest.mark.parametrize("route", ["chat", "completion", "response", "message"])
def test_streams(route: str) -> None:
    names = [name for name in ROUTES if name.startswith(f"{route}-")]
    streamed = {name for name in names if load(name)[0].get("stream")}
    assert streamed == {name for name in names if name.endswith("-stream")}
    assert 5 < len(streamed) < len(names) - 5


@pytest.mark.parametrize("name", ROUTES)
def test_proofs(name: str) -> None:
    """As many as the answer has chunks, each decodes, and they are of as many tokens as the response counts."""
    _, response = load(name)
    field = response[FIELD_NAME]
    for choice in field["choices"]:
        assert len(choice["proofs"]) == num_chunks(len(choice["token_ids"])) > 0
        for proof in choice["proofs"]:
            decode_proof(proof)
    if usage := response.get("usage"):
        assert sum(lengths(response)) == usage.get("completion_tokens", usage.get("output_tokens"))
    for prompt in (response.get("prompt_token_ids"), outputs(response)[0].get("prompt_token_ids")):
        if prompt:
            assert field["prompt"]["sha256"] == token_ids_sha256(prompt)


@pytest.mark.parametrize("name", ROUTES)
def test_recordings_are_evidence(name: str) -> None:
    parsed = parse_evidence(ROUTES[name].read_bytes())
    route = name.split("-", maxsplit=1)[0]
    assert parsed.route == route
    assert parsed.model == "toploc-mini"
    _, response = load(name)
    assert [len(answer.token_ids) for answer in parsed.answers] == lengths(response)
    assert [answer.index for answer in parsed.answers] == list(range(len(parsed.answers)))
