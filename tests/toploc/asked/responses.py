"""Responses."""

from __future__ import annotations

from typing import Any

from . import (
    ADDITION,
    AGAIN,
    EMOJI,
    FLAT_FUNCTIONS,
    GREEDY,
    RESPONSES,
    SCHEMA,
    STOP,
    TALE,
    TWO_CALLS,
    WORDS_AND_CALL,
    Asked,
    streamed,
)

CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 17, "b": 25}'}
ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ADDITION}]},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "A sum: I add them."}],
    },
    CALL,
    {"type": "function_call_output", "call_id": "call_1", "output": "42"},
]
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "42."}]}
FORMAT = {"type": "json_schema", "name": "sum", "schema": SCHEMA, "strict": True}
FIRST = "resp_first"


def response(given: Any, **body: Any) -> tuple[str, dict[str, Any]]:
    """Greedy unless it says another temperature."""
    return RESPONSES, {"input": given, **GREEDY, **body}


_ALONE: Asked = {
    "response-instructions": response(ADDITION, instructions="Answer briefly."),
    "response-function-call": response(ADDITION, tools=FLAT_FUNCTIONS),
    "response-function-required": response(ADDITION, tools=FLAT_FUNCTIONS, tool_choice="required"),
    "response-function-named": response(
        ADDITION, tools=FLAT_FUNCTIONS, tool_choice={"type": "function", "name": "add"}
    ),
    "response-functions-parallel": response(ADDITION, tools=FLAT_FUNCTIONS, structured_outputs=TWO_CALLS),
    "response-text-and-function": response(ADDITION, tools=FLAT_FUNCTIONS, structured_outputs=WORDS_AND_CALL),
    "response-items": response(ITEMS, tools=FLAT_FUNCTIONS),
    "response-conversation": response([ITEMS[0], SAID, {"role": "user", "content": AGAIN}]),
    "response-json-schema": response(ADDITION, text={"format": FORMAT}),
    "response-unicode": response("naïve 🙂", structured_outputs=EMOJI),
    "response-logprobs": response(TALE, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=5),
    "response-cut": response(TALE, max_output_tokens=33),
    "response-one-token": response(ADDITION, max_output_tokens=1),
    "response-stop": response(TALE, stop=[STOP], max_output_tokens=60),
    "response-sampled": response(TALE, temperature=0.9, top_p=0.9, top_k=20, seed=31, max_output_tokens=34),
    "response-metadata": response(
        ADDITION,
        metadata={"run": "7"},
        user="someone",
        prompt_cache_key="k",
        truncation="auto",
        parallel_tool_calls=False,
    ),
    "response-messages": response(ADDITION, enable_response_messages=True),
    "response-special-tokens": response(ADDITION, skip_special_tokens=False, ignore_eos=True, max_output_tokens=20),
    # The server has to remember the first one, so they stay in this order.
    "response-first": response(ADDITION, instructions="Answer briefly.", request_id=FIRST),
    "response-previous": response(AGAIN, previous_response_id=FIRST),
}
ASKED: Asked = {
    **_ALONE,
    **streamed(
        _ALONE,
        "response-instructions",
        "response-function-call",
        "response-functions-parallel",
        "response-text-and-function",
        "response-items",
        "response-json-schema",
        "response-logprobs",
        "response-cut",
        "response-stop",
        "response-previous",
    ),
}
