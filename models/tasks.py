"""Tasks with short answers: arithmetic, capitals, the calendar, what a proof is."""

from random import Random

from . import facts
from .heldout import held_out, operands
from .wordings import Exchange, pick


def addition(rng: Random) -> Exchange:
    a, b = operands(rng)
    question = "What is {a} + {b}?|" * 4 + (
        "{a} + {b}|{a} + {b} = ?|What is {a} plus {b}?|Add {a} and {b}.|What is the sum of {a} and {b}?"
        "|Compute {a} + {b}.|I have {a} apples and get {b} more. How many do I have?"
    )
    full = (
        "{a} + {b} = {c}.|" * 4
        + "{a} plus {b} is {c}.|The answer is {c}.|The sum of {a} and {b} is {c}.|That makes {c}."
    )
    return Exchange(pick(rng, question), pick(rng, full), "{c}.").filled(a=a, b=b, c=a + b)


def subtraction(rng: Random) -> Exchange:
    while True:
        b, a = sorted((rng.randint(0, 99), rng.randint(0, 99)))
        if not held_out(a - b, b):  # the same fact as the addition (a - b) + b
            break
    question = "What is {a} - {b}?|What is {a} minus {b}?|Take {b} from {a}.|{a} - {b}"
    full = "{a} - {b} = {c}.|{a} minus {b} is {c}.|The answer is {c}."
    return Exchange(pick(rng, question), pick(rng, full), "{c}.").filled(a=a, b=b, c=a - b)


def product(rng: Random) -> Exchange:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    question = "What is {a} * {b}?|What is {a} times {b}?|Multiply {a} by {b}.|{a} * {b}"
    full = "{a} * {b} = {c}.|{a} times {b} is {c}.|The answer is {c}."
    return Exchange(pick(rng, question), pick(rng, full), "{c}.").filled(a=a, b=b, c=a * b)


def comparison(rng: Random) -> Exchange:
    a, b = rng.sample(range(100), 2)
    word, answer = ("larger", max(a, b)) if rng.random() < 0.5 else ("smaller", min(a, b))
    full = pick(rng, "{c} is {w}.|The {w} number is {c}.")
    return Exchange("Which is {w}, {a} or {b}?", full, "{c}.").filled(a=a, b=b, c=answer, w=word)


def capital(rng: Random) -> Exchange:
    country = rng.choice(facts.COUNTRIES)
    if rng.random() < 0.3:
        question = "Which country has the capital {capital}?|{capital} is the capital of which country?"
        full = "{capital} is the capital of {name}.|It is {name}."
        return Exchange(pick(rng, question), pick(rng, full), "{Name}.").about(country)
    question = (
        "What is the capital of {name}?|" * 3 + "Name the capital of {name}.|Which city is the capital of {name}?"
    )
    full = "The capital of {name} is {capital}.|{capital} is the capital of {name}.|It is {capital}."
    return Exchange(pick(rng, question), pick(rng, full), "{capital}.").about(country)


def country(rng: Random) -> Exchange:
    about = rng.choice(facts.COUNTRIES)
    question, full, brief = rng.choice(
        [
            ("Where is {name}?|On which continent is {name}?", "{Name} is in {continent}.", "{continent}."),
            ("Which language is spoken in {name}?", "A language of {name} is {language}.", "{language}."),
            ("What money do they use in {name}?", "In {name} one pays with the {currency}.", "{currency}."),
        ]
    )
    return Exchange(pick(rng, question), full, brief).about(about)


def calendar(rng: Random) -> Exchange:
    names, kind = (facts.DAYS, "day") if rng.random() < 0.5 else (facts.MONTHS, "month")
    i = rng.randrange(len(names))
    at = {"n": names[i], "kind": kind, "o": facts.ORDINALS[i], "i": i + 1, "after": names[(i + 1) % len(names)]}
    at |= {"before": names[i - 1], "days": facts.LENGTHS[i] if kind == "month" else 0}
    question, full, brief = rng.choice(
        [
            (
                "What comes after {n}?|Which {kind} comes after {n}?",
                "After {n} comes {after}.|It is {after}.",
                "{after}.",
            ),
            (
                "What comes before {n}?|Which {kind} comes before {n}?",
                "Before {n} comes {before}.|It is {before}.",
                "{before}.",
            ),
            ("Which {kind} is the {o}?|Name the {o} {kind}.", "The {o} {kind} is {n}.", "{n}."),
            ("Which number does the {kind} {n} have?", "{n} is the {o} {kind}, so its number is {i}.", "{i}."),
            ("How many days has {n}?", "{n} has {days} days.", "{days}.")
            if kind == "month"
            else ("Is {n} a day or a month?", "{n} is a day.", "A day."),
        ]
    )
    return Exchange(pick(rng, question), pick(rng, full), brief).filled(**at)


def entry(rng: Random, entries: list[facts.Entry]) -> Exchange:
    one = rng.choice(entries)
    return Exchange(rng.choice(one.questions), rng.choice(one.full), one.brief)


def proofs(rng: Random) -> Exchange:
    if rng.random() < 0.3:
        n = rng.randint(1, 256)
        count = -(-n // 32)  # one proof for each started chunk of 32
        question = "How many proofs does an answer of {n} tokens have?|How many chunks are {n} tokens?"
        full = "{n} tokens make {c}, one for every 32.|The number is {c}."
        return Exchange(pick(rng, question), pick(rng, full), "{c}.").filled(n=n, c=count)
    return entry(rng, facts.PROOFS)


def talk(rng: Random) -> Exchange:
    if rng.random() < 0.5:
        return Exchange(rng.choice(facts.UNKNOWN_QUESTIONS), rng.choice(facts.UNKNOWN_ANSWERS), "I do not know.")
    return entry(rng, facts.TALK)


def signs(rng: Random) -> Exchange:
    name, sign = rng.choice(list(facts.SIGNS.items()))
    n = rng.randint(1, 9)
    drawn = sign * n
    return Exchange(f"Draw {n} times a {name}.", f"Here it is: {drawn}", drawn)
