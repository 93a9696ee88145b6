"""What a stream's events add up to, on every route; what servers send is in tests/engine/test_rehearsal.py."""

from __future__ import annotations

import time
from typing import Any

import pytest

from toploc.evidence.assembly import UNREADABLE, Assembly


def assembled(*events: dict[str, Any]) -> dict[str, Any] | None:
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    return assembly.response()


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "mini", "choices": [*choices], **more}


def delta(index: int, finish_reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"index": index, "delta": said, "finish_reason": finish_reason}


def test_a_chat_of_two_choices() -> None:
    logprobs = [{"content": [{"token": token, "logprob": -1.0}]} for token in ("4", "2")]
    made = assembled(
        chunk(delta(1, role="assistant", content=""), prompt_token_ids=[1, 2]),
        chunk(delta(0, role="assistant", content=""), prompt_token_ids=[1, 2]),
        chunk({**delta(1, content="4"), "logprobs": logprobs[0], "token_ids": [4]}),
        chunk(delta(0, reasoning="Hm", content=None)),
        chunk({**delta(1, "stop", content="2"), "logprobs": logprobs[1], "token_ids": [2], "stop_reason": "x"}),
        chunk(delta(0, "length", reasoning="m.")),
        chunk(usage={"total_tokens": 9}),
    )
    assert made == {
        "id": "c",
        "object": "chat.completion",
        "created": 5,
        "model": "mini",
        "prompt_token_ids": [1, 2],
        "usage": {"total_tokens": 9},
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "", "reasoning": "Hmm."},
                "finish_reason": "length",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": "42"},
                "finish_reason": "stop",
                "stop_reason": "x",
                "logprobs": {"content": [*logprobs[0]["content"], *logprobs[1]["content"]]},
                "token_ids": [4, 2],
            },
        ],
    }


def test_calls_of_tools_go_by_their_number() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        named = {"id": f"call-{index}", "type": "function"} if "name" in function else {}
        return delta(0, tool_calls=[{"index": index, **named, "function": function}])

    made = assembled(
        chunk(call(0, name="add", arguments="")),
        chunk(call(1, name="sub", arguments='{"a"')),
        chunk(call(0, arguments="{}")),
        chunk(call(1, arguments=": 5}")),
    )
    assert made is not None
    assert made["choices"][0]["message"]["tool_calls"] == [
        {"index": 0, "id": "call-0", "type": "function", "function": {"name": "add", "arguments": "{}"}},
        {"index": 1, "id": "call-1", "type": "function", "function": {"name": "sub", "arguments": '{"a": 5}'}},
    ]


def test_a_completion() -> None:
    def part(text: str, **more: Any) -> dict[str, Any]:
        return {"object": "text_completion", "id": "c", "choices": [{"index": 0, "text": text, **more}]}

    made = assembled(
        part("one", logprobs={"tokens": ["one"], "text_offset": [0]}),
        part(", two", logprobs={"tokens": [", two"], "text_offset": [3]}, finish_reason="length"),
    )
    assert made is not None
    assert made["choices"] == [
        {
            "index": 0,
            "text": "one, two",
            "logprobs": {"tokens": ["one", ", two"], "text_offset": [0, 3]},
            "finish_reason": "length",
        }
    ]


def test_a_message() -> None:
    made = assembled(
        {
            "type": "message_start",
            "message": {"id": "m", "type": "message", "content": [], "usage": {"input_tokens": 3}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "ping"},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "4"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "2"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "input": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "5}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    assert made == {
        "id": "m",
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "text", "text": "42"},
            {"type": "tool_use", "id": "t", "input": {"a": 5}},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 9},
        "stop_reason": "tool_use",
    }


def test_a_response_has_its_last_event_for_the_whole() -> None:
    whole = {"object": "response", "output": []}
    assert assembled({"type": "response.created", "response": {"output": [1]}}) is None
    assert assembled({"type": "response.output_text.delta"}, {"type": "response.completed", "response": whole}) == whole


def test_events_of_other_kinds_make_nothing() -> None:
    assert assembled() is None
    assert assembled({"error": {"message": "…"}}, {"object": "list"}) is None


@pytest.mark.parametrize(
    "event",
    [
        chunk({"delta": {}}),
        chunk({"index": "x"}),
        {**chunk(), "choices": 5},
        {**chunk(), "choices": ["x"]},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_start"},
        {"type": "response.completed", "response": 5},
    ],
)
def test_what_is_no_event_of_a_server(event: dict[str, Any]) -> None:
    with pytest.raises(UNREADABLE):
        assembled(event)


def test_an_events_cost_does_not_grow_with_the_stream() -> None:
    def taken(count: int) -> float:
        events = [chunk({**delta(0, content="word "), "token_ids": [7]}) for _ in range(count)]
        began = time.process_time()
        made = assembled(*events)
        assert made is not None
        assert len(made["choices"][0]["token_ids"]) == count
        return time.process_time() - began

    assert min(taken(40_000) for _ in range(3)) < 12 * min(taken(10_000) for _ in range(3))
