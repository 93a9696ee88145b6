"""Chats and batches of them."""

from __future__ import annotations

from typing import Any

from . import (
    ADDITION,
    AGAIN,
    BATCH,
    BYTES,
    CHAT,
    COUNT,
    EMOJI,
    END,
    FULL_STOP,
    FUNCTIONS,
    GREEDY,
    RESPONSE_FORMAT,
    SAMPLED,
    STOP,
    STORY,
    SUM,
    TWO_CALLS,
    WORDS_AND_CALL,
    Asked,
    streamed,
)

CALLED = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 17, "b": 25}'}}
NAMED = {"type": "function", "function": {"name": "add"}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": [{"type": "text", "text": "¿Qué? 🙂 "}, {"type": "text", "text": ADDITION}]},
    {"role": "assistant", "content": "42."},
    {"role": "user", "content": AGAIN},
]


def chat(messages: list[Any], path: str = CHAT, **body: Any) -> tuple[str, dict[str, Any]]:
    """Greedy unless it says another temperature."""
    return path, {"messages": messages, **GREEDY, **body}


TOOLS: Asked = {
    "chat-tool-auto": chat(SUM, tools=FUNCTIONS),
    "chat-tool-required": chat(SUM, tools=FUNCTIONS, tool_choice="required"),
    "chat-tool-named": chat(SUM, tools=FUNCTIONS, tool_choice=NAMED),
    "chat-tools-parallel": chat(SUM, tools=FUNCTIONS, structured_outputs=TWO_CALLS),
    "chat-tool-and-text": chat(SUM, tools=FUNCTIONS, structured_outputs=WORDS_AND_CALL),
    "chat-tool-not-called": chat(SUM, tools=FUNCTIONS, structured_outputs={"regex": r"17 \+ 25 = [0-9]{1,3}\."}),
    "chat-tool-choice-none": chat(SUM, tools=FUNCTIONS, tool_choice="none"),
    "chat-tool-cut": chat(SUM, tools=FUNCTIONS, max_tokens=14),
    "chat-tool-result": chat(
        [
            *SUM,
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ],
        tools=FUNCTIONS,
    ),
}
LOGPROBS: Asked = {
    "chat-logprobs": chat(STORY, max_tokens=8, logprobs=True, top_logprobs=2),
    "chat-logprobs-sampled": chat(STORY, max_tokens=8, logprobs=True, top_logprobs=1, seed=5, **SAMPLED),
    "chat-logprobs-as-ids": chat(SUM, logprobs=True, top_logprobs=0, return_tokens_as_token_ids=True),
    "chat-prompt-logprobs": chat(SUM, max_tokens=8, prompt_logprobs=1),
}
CHOICES: Asked = {
    "chat-three-choices": chat(STORY, n=3, max_tokens=34, **SAMPLED),
    "chat-three-choices-seeded": chat(STORY, n=3, max_tokens=12, seed=7, **SAMPLED),
    "chat-three-choices-logprobs": chat(STORY, n=3, max_tokens=4, logprobs=True, top_logprobs=1, seed=8, **SAMPLED),
}
STRUCTURED: Asked = {
    "chat-json-schema": chat(SUM, response_format=RESPONSE_FORMAT),
    "chat-json-object": chat(SUM, response_format={"type": "json_object"}, max_tokens=24),
    "chat-regex": chat(SUM, structured_outputs={"regex": r"[a-z]{3,8}, [0-9]{2}"}, temperature=1, seed=1),
    "chat-unicode": chat(STORY, structured_outputs=EMOJI),
}
ENDS: Asked = {
    "chat-stop": chat(STORY, stop=["nowhere", STOP], max_tokens=60),
    "chat-stop-included": chat(STORY, stop=STOP, include_stop_str_in_output=True, max_tokens=60),
    "chat-stop-token": chat(STORY, stop_token_ids=[FULL_STOP], max_tokens=60),
    "chat-length": chat(COUNT, max_completion_tokens=33),
    "chat-one-token": chat(SUM, max_tokens=1),
    "chat-min-tokens": chat(SUM, min_tokens=20, max_tokens=40),
    "chat-ignore-eos": chat(SUM, ignore_eos=True, max_tokens=20),
    "chat-long": chat(STORY, max_tokens=200, ignore_eos=True),
    "chat-empty": chat(SUM, logit_bias={str(END): 100}),
    "chat-repetition": chat(
        SUM, max_tokens=40, logit_bias={"70": 100}, repetition_detection={"max_pattern_size": 2, "min_count": 4}
    ),
}
SAMPLING: Asked = {
    "chat-seeded": chat(STORY, max_tokens=34, temperature=0.8, seed=11),
    "chat-truncated-sampling": chat(STORY, max_tokens=34, temperature=1.2, top_k=20, top_p=0.9, min_p=0.02, seed=12),
    "chat-penalties": chat(
        STORY, max_tokens=34, repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.4, seed=13, **SAMPLED
    ),
    "chat-logit-bias": chat(SUM, max_tokens=20, logit_bias={"25": -100, "400": 2.5}),
    "chat-bad-words": chat(STORY, max_tokens=20, bad_words=["dog", " kind"]),
    "chat-broken-characters": chat(STORY, max_tokens=16, allowed_token_ids=BYTES, seed=14, **SAMPLED),
}
SHAPES: Asked = {
    "chat-token-ids": chat(SUM, return_token_ids=True, return_prompt_text=True),
    "chat-special-tokens": chat(SUM, skip_special_tokens=False, ignore_eos=True, max_tokens=20),
    "chat-continued": chat(
        [*SUM, {"role": "assistant", "content": "17 + 25 ="}],
        echo=True,
        add_generation_prompt=False,
        continue_final_message=True,
    ),
    "chat-conversation": chat(CONVERSATION),
    "chat-truncated-prompt": chat(CONVERSATION, truncate_prompt_tokens=20, max_tokens=12),
    "chat-metadata": chat(SUM, metadata={"note": "naïve 🙂"}, user="someone", no_such_option=1),
    "chat-whole-floats": chat(SUM, max_tokens=12.0, temperature=0.0, n=1.0),
}
BATCHES: Asked = {
    "batch-logprobs": chat([SUM, STORY], BATCH, max_tokens=6, logprobs=True, top_logprobs=1),
    "batch-json-schema": chat([SUM, SUM], BATCH, response_format=RESPONSE_FORMAT, max_tokens=40),
    "batch-stop": chat([STORY, COUNT], BATCH, stop=[STOP, "4"], max_tokens=40),
    "batch-token-ids": chat([SUM, CONVERSATION], BATCH, return_token_ids=True),
    "batch-sampled": chat([STORY, STORY, SUM], BATCH, temperature=1, max_tokens=34, seed=15),
    "batch-one": chat([SUM], BATCH),
}

_ALONE: Asked = {**TOOLS, **LOGPROBS, **CHOICES, **STRUCTURED, **ENDS, **SAMPLING, **SHAPES, **BATCHES}
ASKED: Asked = {
    **_ALONE,
    **streamed(
        _ALONE,
        "chat-tool-auto",
        "chat-tool-required",
        "chat-tool-named",
        "chat-tools-parallel",
        "chat-tool-and-text",
        "chat-tool-cut",
        "chat-logprobs",
        "chat-three-choices",
        "chat-three-choices-logprobs",
        "chat-json-schema",
        "chat-unicode",
        "chat-stop",
        "chat-stop-included",
        "chat-stop-token",
        "chat-length",
        "chat-one-token",
        "chat-long",
        "chat-empty",
        "chat-seeded",
        "chat-broken-characters",
        "chat-token-ids",
        "chat-special-tokens",
        "chat-continued",
    ),
    "chat-usage-stream": chat(SUM, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
}
