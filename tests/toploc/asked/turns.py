"""What a server that runs tools by itself is asked: a response may be of several turns. It does not stream those."""

from __future__ import annotations

from . import ADDITION, FLAT_FUNCTIONS, GREEDY, RESPONSES, Asked

# The bundled model knows of no interpreter, so a grammar has it call one.
INTERPRET = r'<tool_call>\n\{"name": "code_interpreter", "arguments": \{"code": "[0-9+]{1,12}"\}\}\n</tool_call>'
ANSWER = r"[0-9 +=]{5,15}\."
INTERPRETER = {"type": "code_interpreter", "container": {"type": "auto"}}
GIVEN = {"input": ADDITION, "tools": [*FLAT_FUNCTIONS, INTERPRETER], **GREEDY}

ASKED: Asked = {
    "response-tool-turn": (RESPONSES, {**GIVEN, "structured_outputs": {"regex": f"{INTERPRET}|{ANSWER}"}}),
    "response-tool-unused": (RESPONSES, {**GIVEN, "structured_outputs": {"regex": ANSWER}}),
}
