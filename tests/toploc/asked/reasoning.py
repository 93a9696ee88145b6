"""What a server with a parser of reasoning is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import ADD, ADDITION, BATCH, CHAT, FLAT_FUNCTIONS, FUNCTIONS, MESSAGES, RESPONSES, STORY, SUM, Asked, streamed

FLAGS = [
    *("--reasoning-parser", "thoughts", "--reasoning-parser-plugin", str(Path(__file__).with_name("thoughts.py"))),
    *("--structured-outputs-config", '{"enable_in_reasoning": true}'),
]
# The bundled model does not think by itself, so a grammar has it put words between the marks of `thoughts.py`. Their
# tokens are preferred to the letters of the same text, of which the parser of a stream would know nothing.
THOUGHT = r"<tool_response>[a-z ]{20,30}\.</tool_response>"
MARKS = {"1022": 100, "1023": 100}
ANSWER = r"[0-9 +=]{5,15}\."
# The only grammar that messages have: text in quotation marks.
SPOKEN = {"type": "string", "pattern": r"^<tool_response>[a-z ]{5,20}</tool_response>[0-9]{2}$"}


def thinking(pattern: str, **body: Any) -> dict[str, Any]:
    given = {"structured_outputs": {"regex": pattern}, "logit_bias": MARKS, "max_tokens": 150, "temperature": 0}
    return {"messages": SUM, **given, **body}


def responding(pattern: str, **body: Any) -> dict[str, Any]:
    given = {"structured_outputs": {"regex": pattern}, "logit_bias": MARKS, "temperature": 0}
    return {"input": ADDITION, **given, **body}


def speaking(**body: Any) -> dict[str, Any]:
    given = {"output_config": {"format": {"type": "json_schema", "schema": SPOKEN}}, "temperature": 0}
    return {"messages": SUM, "max_tokens": 60, **given, **body}


_ALONE: Asked = {
    "chat-reasoning": (CHAT, thinking(THOUGHT + ANSWER)),
    "chat-reasoning-hidden": (CHAT, thinking(THOUGHT + ANSWER, include_reasoning=False)),
    "chat-reasoning-tool": (CHAT, thinking(THOUGHT + ADD, tools=FUNCTIONS)),
    "chat-reasoning-logprobs": (
        CHAT,
        thinking("<tool_response>[a-z]{3}</tool_response>4", logprobs=True, top_logprobs=1),
    ),
    "chat-reasoning-choices": (CHAT, thinking(THOUGHT + ANSWER, n=3, temperature=1, seed=41)),
    "chat-reasoning-cut": (CHAT, thinking(THOUGHT + ANSWER, max_tokens=8)),
    "batch-reasoning": (BATCH, thinking(THOUGHT + ANSWER, messages=[SUM, STORY])),
    "response-reasoning": (RESPONSES, responding(THOUGHT + ANSWER)),
    "response-reasoning-function": (RESPONSES, responding(THOUGHT + ADD, tools=FLAT_FUNCTIONS)),
    "response-reasoning-cut": (RESPONSES, responding(THOUGHT + ANSWER, max_output_tokens=8)),
    "message-thinking": (MESSAGES, speaking(thinking={"type": "adaptive"})),
    "message-thinking-cut": (MESSAGES, speaking(max_tokens=4)),
}
ASKED: Asked = {
    **_ALONE,
    **streamed(
        _ALONE,
        "chat-reasoning",
        "chat-reasoning-hidden",
        "chat-reasoning-tool",
        "chat-reasoning-choices",
        "chat-reasoning-cut",
        "response-reasoning",
        "response-reasoning-function",
        "message-thinking",
    ),
}
