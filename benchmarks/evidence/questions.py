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
from models.prompts import prompts as people_prompts  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SYSTEM = "Answer in capitals."
"""In place of the default system prompt."""

WORDS = [word for name in sorted(topics) for word in topics[name].split()]
"""Of Python's reference manual, which comes with it."""

TEMPERATURES = (0.0, 1.0, 0.7, 1.0)
"""Of questions by their number."""

HONEST_SHARE = 0.6
"""Of people's prompts, the first: honest rows have them, altered rows have the others."""


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


def of_people(number: int) -> str:
    """A prompt from text that people wrote; numbers below 100,000 have others than those from there on."""
    every = people_prompts()
    middle = round(HONEST_SHARE * len(every))
    return every[number % middle] if number < 100_000 else every[middle + number % 100_000 % (len(every) - middle)]


def make_questions(
    tokenizer: Any, numbers: Sequence[int], change: str | None = None, source: str = "corpus"
) -> list[Question]:
    """The same numbers give the same prompts. `change`: one of `CHANGES`, made by the provider. `source`: the bundled
    model's corpus, or `manual`, prompts from text that people wrote; a model without a chat template gets the text."""

    def render(messages: list[dict[str, str]]) -> list[int]:
        if tokenizer.chat_template is None:
            return [int(i) for i in tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"]]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        return [int(i) for i in ids]

    write = {"corpus": content, "manual": of_people}[source]
    found = []
    for number in numbers:
        text = write(number)
        prompt = render([{"role": "user", "content": text}])
        asked = CHANGES[change](text, prompt, render) if change else prompt
        found.append(Question(prompt, asked, TEMPERATURES[number % len(TEMPERATURES)]))
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
