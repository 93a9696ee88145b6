"""What a stream said, put together as a client does it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from toploc_proxy.receipts import delivered
from toploc_proxy.receipts.delivered import Delivered

from toploc.receipts.output import output_of, shown_in
from toploc.receipts.signed import leaves_sha256


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
    beside = {name: delta.pop(name) for name in ("stop_reason", "token_ids") if name in delta}
    choice = {"index": index, "delta": delta, "finish_reason": finish, **beside}
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
    name = first.pop("name", None)
    return {"index": index, "function": {"arguments": arguments, **({"name": name} if name else {})}, **first}


STREAM = [
    chunk(role="assistant", content=""),
    chunk(1, role="assistant", content=""),
    chunk(reasoning="Hm."),
    chunk(1, content="zwölf "),
    b": ping\n\n",
    chunk(reasoning=" So.", content=None),
    chunk(content="é"),
    chunk(tool_calls=[call(0, "", id="x", type="function", name="add")]),
    chunk(tool_calls=[call(0, '{"a"')]),
    chunk(1, content="🙂", finish="stop"),
    chunk(tool_calls=[call(0, ": 1}"), call(1, "{}", id="y", type="function", name="sub")]),
    chunk(finish="tool_calls"),
    b"data: [DONE]\n\n",
]
FIRST = {
    "text": "é",
    "reasoning": "Hm. So.",
    "tool_calls": [
        {"id": "x", "name": "add", "arguments": '{"a": 1}'},
        {"id": "y", "name": "sub", "arguments": "{}"},
    ],
}


def shown(parts: Delivered, index: int) -> tuple[Any, str | None]:
    said = shown_in(parts.response(index) or {}, index)
    return output_of(said), said.get("finish_reason")


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=8), st.integers(1, 4))
def test_however_it_is_cut(cuts: list[int], fold: int) -> None:
    data = b"".join(STREAM)
    parts = Delivered()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivered, "FOLD", fold)
        for start, end in pairwise([0, *sorted(cuts), len(data)]):
            parts.keep(data[start:end])
    assert shown(parts, 0) == (FIRST, "tool_calls")
    assert shown(parts, 1) == ({"text": "zwölf 🙂"}, "stop")
    assert shown(parts, 2) == (None, None)


def test_other_line_ends_and_fields() -> None:
    parts = Delivered()
    for event in STREAM:
        data = b"id: 7\r\n" + event.replace(b"\n", b"\r\n")
        parts.keep(data[:-3])
        parts.keep(data[-3:])
    assert shown(parts, 0) == (FIRST, "tool_calls")


def test_as_the_sdk_does_it() -> None:
    """But for what its snapshot drops, and for texts of reasoning, which it takes for none of its own."""
    state = ChatCompletionStreamState()
    events = [*STREAM[:-2], chunk(finish="tool_calls", stop_reason=7, token_ids=[5]), STREAM[-1]]
    for event in events:
        if event.startswith(b"data: {"):
            state.handle_chunk(ChatCompletionChunk.model_validate_json(event.removeprefix(b"data: ")))
    parts = Delivered()
    parts.keep(b"".join(events))
    ours, snapshot = parts.response(None), state.current_completion_snapshot.model_dump()
    assert ours is not None
    dropped = {(0, "stop_reason"): 7, (0, "token_ids"): [5]}
    assert {
        (c["index"], name): c[name] for c in ours["choices"] for name in c if name in ("stop_reason", "token_ids")
    } == dropped
    for index, name in dropped:
        del ours["choices"][index][name]
    for index in (0, 1):
        assert leaves_sha256(ours, index) == leaves_sha256(snapshot, index)


def test_messages() -> None:
    parts = Delivered()
    for event in (
        {"type": "message_start", "message": {"id": "m", "type": "message", "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "42"}},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "x", "name": "add", "input": {}},
        },
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    ):
        parts.keep(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    calls = [{"id": "x", "name": "add", "arguments": {"a": 1}}]
    assert shown(parts, 0) == ({"text": "42", "reasoning": "Hm.", "tool_calls": calls}, "tool_use")


def test_completions() -> None:
    parts = Delivered()
    for text, reason in (("a", None), ("", None), ("b", "stop")):
        choice = {"index": 0, "text": text, "finish_reason": reason}
        parts.keep(b"data: " + json.dumps({"object": "text_completion", "choices": [choice]}).encode() + b"\n\n")
    assert shown(parts, 0) == ({"text": "ab"}, "stop")


@pytest.mark.parametrize(
    "event",
    [
        b"data: {broken\n\n",
        b'data: {"choices": [{}]}\n\n',
        b'data: {"choices": 5}\n\n',
        b'data: {"choices": [{"index": 0, "delta": [5]}]}\n\n',
    ],
)
def test_events_of_another_kind_are_not_vouched_for(event: bytes) -> None:
    parts = Delivered()
    parts.keep(chunk(content="a"))
    parts.keep(event)
    parts.keep(chunk(content="b"))
    assert parts.response(0) is None
    parts.keep(event)
    assert parts._kept == []
