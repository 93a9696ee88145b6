"""A parser of reasoning by tokens that the bundled model has, for `--reasoning-parser-plugin`.

Most reasoning parsers of vLLM are this class with tokens such as `<think>`. The model has none of those, but two that
mark what a tool gave and that stand in prompts only.
"""

from __future__ import annotations

from vllm.reasoning import ReasoningParserManager
from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser

START, END = "<tool_response>", "</tool_response>"


@ReasoningParserManager.register_module("thoughts")
class Thoughts(BaseThinkingReasoningParser):
    @property
    def start_token(self) -> str:
        return START

    @property
    def end_token(self) -> str:
        return END
