"""The end of a text that stops within a character: engines write it in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BROKEN: Final = "\N{REPLACEMENT CHARACTER}"
"""What stands for bytes that are no UTF-8. Engines that stream text leave out different ones of them."""

CONTEXT: Final = 8
"""Tokens decoded together. A character is of four bytes at most, so of no more tokens than that."""


def unfinished(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> str:
    """The end of the tokens' text that vLLM leaves out, and SGLang writes: empty where the last character is whole.

    vLLM's detokenizer holds a token back whose text does not end with a whole character (`DecodeStream` of Hugging
    Face's tokenizers), with what else is in it, such as a space before. When the answer ends, it stays behind. SGLang
    decodes all of an answer that has ended (sglang/srt/managers/detokenizer_manager.py).
    """
    whole = len(token_ids)
    while whole and decode(token_ids[max(0, whole - CONTEXT) : whole]).endswith(BROKEN):
        whole -= 1
    if whole == len(token_ids):
        return ""
    before = token_ids[max(0, whole - CONTEXT) : whole]
    return decode([*before, *token_ids[whole:]]).removeprefix(decode(before))
