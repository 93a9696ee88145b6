"""Messages, as Anthropic's API has them."""

from __future__ import annotations

from typing import Any

from . import (
    AGAIN,
    GREEDY,
    MESSAGE_TOOLS,
    MESSAGES,
    SCHEMA,
    STOP,
    STORY,
    SUM,
    Asked,
    streamed,
)

SYSTEM = [{"type": "text", "text": "Answer briefly."}, {"type": "text", "text": " Be polite. 🙂"}]
BLOCKS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "17 + 25?"}]
CALLED = [
    {"type": "thinking", "thinking": "A sum.", "signature": "none"},
    {"type": "text", "text": "I add them."},
    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 17, "b": 25}},
]
RESULT = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "42"}]}]


def message(messages: list[Any], **body: Any) -> tuple[str, dict[str, Any]]:
    """Greedy unless it says another temperature."""
    return MESSAGES, {"messages": messages, "max_tokens": 60, **GREEDY, **body}


_ALONE: Asked = {
    "message-text": message(SUM, system="Answer briefly."),
    "message-system-blocks": message(SUM, system=SYSTEM, metadata={"user_id": "someone"}),
    "message-blocks": message([{"role": "user", "content": BLOCKS}]),
    "message-tool-use": message(SUM, tools=MESSAGE_TOOLS),
    "message-tool-any": message(SUM, tools=MESSAGE_TOOLS, tool_choice={"type": "any"}),
    "message-tool-named": message(SUM, tools=MESSAGE_TOOLS, tool_choice={"type": "tool", "name": "add"}),
    "message-tool-result": message(
        [*SUM, {"role": "assistant", "content": CALLED}, {"role": "user", "content": RESULT}], tools=MESSAGE_TOOLS
    ),
    "message-conversation": message(
        [*SUM, {"role": "assistant", "content": "42."}, {"role": "user", "content": AGAIN}]
    ),
    "message-stop-sequence": message(STORY, stop_sequences=["nowhere", STOP]),
    "message-max-tokens": message(STORY, max_tokens=33),
    "message-one-token": message(SUM, max_tokens=1),
    "message-json-schema": message(SUM, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
    "message-sampled": message(STORY, max_tokens=34, temperature=1, top_k=20, top_p=0.9),
}
ASKED: Asked = {
    **_ALONE,
    **streamed(
        _ALONE,
        "message-text",
        "message-tool-use",
        "message-tool-any",
        "message-stop-sequence",
        "message-max-tokens",
        "message-json-schema",
    ),
}
