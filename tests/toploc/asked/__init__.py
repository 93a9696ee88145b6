"""What `record.py` asks servers for: a module for each route or server, and here the words that they share."""

from __future__ import annotations

from typing import Any

from models.corpus import TOOLS

Asked = dict[str, tuple[str, dict[str, Any]]]
"""Path and body of each recording, by its name. A body has no `model`, which is always the bundled one."""

CHAT, BATCH, COMPLETIONS = "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions"
RESPONSES, MESSAGES, TOKENS = "/v1/responses", "/v1/messages", "/inference/v1/generate"

GREEDY = {"temperature": 0}
SAMPLED = {"temperature": 1, "ignore_eos": True}

ADDITION, TALE, AGAIN = "What is 17 + 25?", "Tell me a story.", "Please say that again."
SUM = [{"role": "user", "content": ADDITION}]
STORY = [{"role": "user", "content": TALE}]
COUNT = [{"role": "user", "content": "Count from 1 to 40."}]

STOP = "wind w"
"""Within a word, and within what a greedy story says."""

FUNCTIONS = [TOOLS["add"], TOOLS["get_capital"]]
FLAT_FUNCTIONS = [{"type": "function", **tool["function"]} for tool in FUNCTIONS]
MESSAGE_TOOLS = [
    {
        "name": tool["function"]["name"],
        "description": tool["function"]["description"],
        "input_schema": tool["function"]["parameters"],
    }
    for tool in FUNCTIONS
]
# The bundled model calls one tool and says nothing beside it, so a grammar has it do what others do by themselves.
ADD = r'<tool_call>\n\{"name": "add", "arguments": \{"a": [0-9]{1,2}, "b": [0-9]{1,2}\}\}\n</tool_call>'
CAPITAL = r'<tool_call>\n\{"name": "get_capital", "arguments": \{"country": "[A-Z][a-z]{2,10}"\}\}\n</tool_call>'
TWO_CALLS = {"regex": rf"{ADD}\n{CAPITAL}"}
WORDS_AND_CALL = {"regex": rf"I add them\. {ADD}"}

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "sure": {"type": "boolean"}},
    "required": ["sum", "sure"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
EMOJI = {"choice": ["naïve café 🙂🇫🇷 漢字"]}

END, FULL_STOP = 5, 19
"""Token ids: of the end of a turn, and of a full stop."""
BYTES = [475, 253, 230, 133, 168, 126]
"""Token ids of parts of characters: of 🙂, é and 漢. Some of what they make is no UTF-8."""


def streamed(asked: Asked, *names: str) -> Asked:
    """The same as streams, under the name with `-stream`."""
    return {f"{name}-stream": (asked[name][0], {**asked[name][1], "stream": True}) for name in names}
