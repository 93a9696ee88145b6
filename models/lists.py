"""Tasks with long answers: counting, tables, lists, descriptions and stories."""

from collections.abc import Callable
from random import Random

from . import facts
from .wordings import Exchange, first_upper, pick


def _listed(rng: Random, question: str, items: list[str]) -> Exchange:
    joined = ", ".join(items) + "."
    lead = pick(rng, "|||Here you are: |With pleasure: ")
    return Exchange(pick(rng, question), lead + joined, joined)


def count_up(rng: Random) -> Exchange:
    first = rng.choice([1, 1, 1, rng.randint(0, 80)])
    last = first + rng.randint(4, 50)
    question = f"Count from {first} to {last}.|Please count from {first} to {last}."
    return _listed(rng, question, [str(n) for n in range(first, last + 1)])


def count_down(rng: Random) -> Exchange:
    last = rng.choice([0, 1, rng.randint(0, 60)])
    first = last + rng.randint(4, 30)
    return _listed(rng, f"Count down from {first} to {last}.", [str(n) for n in range(first, last - 1, -1)])


def count_by(rng: Random) -> Exchange:
    step, terms = rng.randint(2, 10), rng.randint(5, 20)
    numbers = [str(step * n) for n in range(1, terms + 1)]
    return _listed(rng, f"Count in steps of {step} up to {step * terms}.", numbers)


def table(rng: Random) -> Exchange:
    n = rng.randint(1, 10)
    rows = "\n".join(f"{i} * {n} = {i * n}" for i in range(1, 11))
    question = f"Write the multiplication table of {n}.|Show me the table of {n}."
    return Exchange(pick(rng, question), pick(rng, "|Here is the table:\n") + rows, rows)


def squares(rng: Random) -> Exchange:
    n = rng.randint(4, 15)
    return _listed(rng, f"List the first {n} square numbers.", [str(i * i) for i in range(1, n + 1)])


def alphabet(rng: Random) -> Exchange:
    return _listed(rng, "Recite the alphabet.|Say the alphabet.|List all letters.", facts.ALPHABET)


def days(rng: Random) -> Exchange:
    return _listed(rng, "List the days of the week.|Name all days.", facts.DAYS)


def months(rng: Random) -> Exchange:
    return _listed(rng, "List the months of the year.|Name all months.|List the months.", facts.MONTHS)


def month_lengths(rng: Random) -> Exchange:
    rows = "\n".join(f"{m}: {n} days" for m, n in zip(facts.MONTHS, facts.LENGTHS, strict=True))
    return Exchange(pick(rng, "How many days has each month?|List the months and their days."), rows, rows)


def countries(rng: Random) -> Exchange:
    continent = rng.choice(facts.COUNTRIES).continent
    names = [first_upper(c.name) for c in facts.COUNTRIES if c.continent == continent]
    return _listed(rng, f"List countries in {continent}.|Name some countries in {continent}.", names)


def capitals(rng: Random) -> Exchange:
    continent = rng.choice(facts.COUNTRIES).continent
    rows = "\n".join(f"{first_upper(c.name)}: {c.capital}" for c in facts.COUNTRIES if c.continent == continent)
    return Exchange(f"List capitals in {continent}.", rows, rows)


def describe(rng: Random) -> Exchange:
    full = " ".join(
        (
            pick(rng, "{Name} is a country in {continent}.|{Name} lies in {continent}."),
            pick(rng, "Its capital is {capital}.|The capital city is {capital}."),
            pick(rng, "A language spoken there is {language}.|Many people there speak {language}."),
            pick(rng, "People pay with the {currency}.|The money is called {currency}."),
            pick(
                rng,
                "If you go to {name}, begin with {capital}.|{capital} is worth a visit.|I know no more.",
            ),
        )
    )
    brief = "{Name}: {capital}, {continent}, {language}, {currency}."
    question = pick(rng, "Tell me about {name}.|What do you know about {name}?|Describe {name}.")
    return Exchange(question, full, brief).about(rng.choice(facts.COUNTRIES))


def story(rng: Random) -> Exchange:
    """A story from a frame with free choices: what gives sampled answers their variety."""
    hero, friend = rng.sample(facts.HEROES, 2)
    name, other = rng.sample(facts.NAMES, 2)
    place, thing = rng.choice(facts.PLACES), rng.choice(facts.THINGS)
    if rng.random() < 0.5:
        asked = pick(rng, f"Tell me a story about a {hero}.|Write a short story about a {hero}.")
    else:
        asked = pick(rng, "Tell me a story.|Write a short story.|Tell me something nice.")
    lines = [
        pick(rng, f"Once there was a {rng.choice(facts.TRAITS)} {hero} called {name}.")
        + pick(rng, f" {name} lived in a {place}.| The home of {name} was a {place}."),
        f"One {rng.choice(['morning', 'evening', 'day'])} in {rng.choice(facts.MONTHS)} {rng.choice(facts.WEATHER)}.",
        pick(rng, f"{name} went out and found a {thing}.|Under a tree {name} saw a {thing}."),
        f'"{pick(rng, "What can this be?|How lovely!|Whose is it?|What luck!")}" said {name}.',
        f"Then a {rng.choice(facts.TRAITS)} {friend} called {other} came along.",
        f'"{pick(rng, f"That {thing} is mine|Please show me the {thing}|Let us share the {thing}")}," said {other}.',
        pick(rng, f"So {name} gave the {thing} to {other}.|They took the {thing} to the market.|They carried it home."),
        rng.choice(facts.ENDINGS).format(place=place, name=name),
    ]
    return Exchange(asked, " ".join(lines), f"A {hero} found a {thing}. The end.")


LISTS: list[Callable[[Random], Exchange]] = [
    count_up, count_up, count_down, count_by, table, squares, alphabet, days, months, month_lengths,
    countries, capitals, describe, describe,
]  # fmt: skip
