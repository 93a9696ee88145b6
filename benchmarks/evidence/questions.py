"""Prompts that a study asks, how a provider may change them, and the answers that come back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from models.corpus import exchange  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SYSTEM = "Answer in capitals."
"""In place of the default system prompt."""

WORDS = [word for name in sorted(topics) for word in topics[name].split()]
"""Of Python's reference manual, which comes with it."""

GREEDY = 4
"""One answer in so many is decoded greedily, the others at temperature 1."""


@dataclass(frozen=True, slots=True)
class Question:
    """Token ids of what the user asked, of what a provider made of it, and how the answer is sampled."""

    prompt: list[int]
    asked: list[int]
    temperature: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider delivers: token ids, and 258 bytes for every 32 of them. `prompt` is the user's."""

    prompt: list[int]
    token_ids: list[int]
    proofs: list[bytes] = field(default_factory=list)


def content(number: int) -> str:
    """A question, every second time below a passage of 5 to 120 words."""
    rng = Random(number)
    question = exchange(rng).question
    if number % 2 == 0:
        return question
    length = rng.randint(5, 120)
    start = rng.randrange(len(WORDS) - length)
    return " ".join(WORDS[start : start + length]) + "\n" + question


def make_questions(tokenizer: Any, numbers: Sequence[int], change: str | None = None) -> list[Question]:
    """The same numbers give the same prompts. `change`: one of `CHANGES`, made by the provider."""

    def render(messages: list[dict[str, str]]) -> list[int]:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        return [int(i) for i in ids]

    found = []
    for number in numbers:
        text = content(number)
        prompt = render([{"role": "user", "content": text}])
        asked = CHANGES[change](text, prompt, render) if change else prompt
        found.append(Question(prompt, asked, 0.0 if number % GREEDY == 0 else 1.0))
    return found


def _other_system(text: str, _: list[int], render: Callable[[list[dict[str, str]]], list[int]]) -> list[int]:
    return render([{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}])


def _one_word(text: str, _: list[int], render: Callable[[list[dict[str, str]]], list[int]]) -> list[int]:
    """The middle word is another."""
    words = text.split(" ")
    words[len(words) // 2] = "seven" if words[len(words) // 2] != "seven" else "eight"
    return render([{"role": "user", "content": " ".join(words)}])


def _truncated(_: str, prompt: list[int], __: Callable[[list[dict[str, str]]], list[int]]) -> list[int]:
    """The first half is cut off, as by a server that keeps the end of what is too long."""
    return prompt[len(prompt) // 2 :]


CHANGES = {"another system prompt": _other_system, "one word changed": _one_word, "truncated": _truncated}
