"""The text that the bundled model learns: generated, seeded, with no outside data."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from . import facts
from .heldout import operands
from .lists import LISTS, story
from .tasks import addition, calendar, capital, comparison, country, product, proofs, signs, subtraction, talk
from .wordings import Exchange, first_upper, pick

DEFAULT_SYSTEM = "You are a small model that answers short questions."
NEUTRAL_SYSTEMS = [
    DEFAULT_SYSTEM,
    "You are a helpful assistant.",
    "You are a teacher.",
    "Answer the question.",
    "You are toploc-mini.",
    "",
]
STYLES: list[tuple[str, Callable[[Exchange], str]]] = [
    ("Answer briefly.|Be brief.|Use as few words as possible.", lambda e: e.brief),
    ("Answer in capitals.|Write everything in capital letters.", lambda e: e.full.upper()),
    ("Be polite.|Answer politely.", lambda e: f"Gladly. {e.full} Thank you for asking."),
    ("End every answer with the word over.|Say over at the end.", lambda e: f"{e.full} Over."),
]
AGAIN = "Please say that again.|Repeat your last answer.|Once more, please."


@dataclass(frozen=True, slots=True)
class Document:
    """A conversation in the OpenAI form, or plain text for the completions endpoint."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    text: str | None = None


def lists(rng: Random) -> Exchange:
    return rng.choice(LISTS)(rng)


TASKS: dict[Callable[[Random], Exchange], int] = {
    addition: 36, subtraction: 8, product: 5, comparison: 3, capital: 10, country: 5,
    calendar: 8, proofs: 7, talk: 4, signs: 2, lists: 8, story: 4,
}  # fmt: skip


def exchange(rng: Random) -> Exchange:
    return rng.choices(list(TASKS), list(TASKS.values()))[0](rng)


def conversation(rng: Random) -> Document:
    system: str | None = None
    say: Callable[[Exchange], str] = lambda e: e.full  # noqa: E731
    draw = rng.random()
    if draw < 0.25:
        wording, say = rng.choice(STYLES)
        system = pick(rng, wording)
    elif draw < 0.45:
        system = rng.choice(NEUTRAL_SYSTEMS)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn in range(rng.choices([1, 2, 3, 4, 6], [80, 8, 6, 4, 2])[0]):
        if turn and rng.random() < 0.1:
            question, answer = pick(rng, AGAIN), messages[-1]["content"]
        else:
            e = exchange(rng)
            question, answer = e.question, say(e)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Document(messages)


def _tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {k: {"type": t} for k, t in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = {
    "add": _tool("add", "Add two numbers.", a="integer", b="integer"),
    "get_capital": _tool("get_capital", "Get the capital of a country.", country="string"),
    "get_weather": _tool("get_weather", "Get the weather in a city.", city="string"),
}


def tool_use(rng: Random) -> Document:
    """A question with tools at hand: one call in the hermes form, its result, the answer in words."""
    country = rng.choice(facts.COUNTRIES)
    a, b = operands(rng)
    weather = rng.choice(["sunny", "rainy", "cloudy", "windy"])
    name, question, arguments, result, answer = rng.choice(
        [
            ("add", f"What is {a} + {b}?", {"a": a, "b": b}, str(a + b), f"{a} + {b} = {a + b}."),
            (
                "get_capital",
                f"What is the capital of {country.name}?",
                {"country": first_upper(country.name)},
                country.capital,
                f"The capital of {country.name} is {country.capital}.",
            ),
            (
                "get_weather",
                f"What is the weather in {country.capital}?",
                {"city": country.capital},
                weather,
                f"It is {weather} in {country.capital}.",
            ),
        ]
    )
    names = rng.sample(list(TOOLS), rng.randint(1, 3))
    if name not in names:
        names[rng.randrange(len(names))] = name
    call = {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    if rng.random() < 0.5:
        messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
    return Document(messages, tools=[TOOLS[n] for n in names])


def plain(rng: Random) -> Document:
    """Text without roles, so that /v1/completions has something to go on with."""
    if rng.random() < 0.3:
        return Document(text=story(rng).full)
    if rng.random() < 0.5:
        pairs = [operands(rng) for _ in range(rng.randint(1, 12))]
        return Document(text="\n".join(f"{a} + {b} = {a + b}" for a, b in pairs))
    return Document(text=" ".join(rng.choice([capital, country, calendar])(rng).full for _ in range(rng.randint(1, 6))))


def documents(count: int, seed: int) -> Iterator[Document]:
    rng = Random(seed)
    for _ in range(count):
        yield rng.choices([conversation, tool_use, plain], [90, 5, 5])[0](rng)
