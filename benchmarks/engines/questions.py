"""What is asked of each engine: the same, in the same order."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any, Final

from servers import ROOT

sys.path.insert(0, str(ROOT))
from models.prompts import prompts

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPICS: Final = (
    *("a story", "the sea", "numbers", "a king", "what is"),
    *("17 + 25", "the sum of", "a letter", "rain", "tell me"),
)
"""What the bundled model has read of."""

LONGEST: Final = 2000
"""Characters of a prompt, which are 1,200 tokens of the bundled model's at most."""


def questions(count: int, *, name: str, tokens: int, topics: bool) -> Iterator[dict[str, Any]]:
    """Bodies of chats, sampled at temperature 1.

    Args:
        topics: those of the bundled model, in place of `models.prompts`.
    """
    dice = random.Random(0)
    natural = [prompt for prompt in prompts() if len(prompt) <= LONGEST]
    for number in range(count):
        yield {
            "model": name,
            "messages": [
                {
                    "role": "user",
                    "content": " ".join(dice.choices(TOPICS, k=dice.randint(1, 12))) if topics else natural[number],
                }
            ],
            "max_tokens": tokens,
            "temperature": 1.0,
            "ignore_eos": True,
            "toploc": {"prompt_token_ids": True},
        }
