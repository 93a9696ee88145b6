"""The tables of facts.toml, as values."""

import tomllib
from pathlib import Path
from typing import NamedTuple


class Country(NamedTuple):
    name: str
    capital: str
    continent: str
    language: str
    currency: str


class Entry(NamedTuple):
    questions: list[str]
    full: list[str]
    brief: str


_FACTS = tomllib.loads(Path(__file__).with_name("facts.toml").read_text(encoding="utf-8"))

COUNTRIES = [Country(*row.split(", ")) for row in _FACTS["countries"].splitlines()]
PROOFS = [Entry(**entry) for entry in _FACTS["proofs"]]
TALK = [Entry(**entry) for entry in _FACTS["talk"]]
UNKNOWN_QUESTIONS: list[str] = _FACTS["unknown_questions"]
UNKNOWN_ANSWERS: list[str] = _FACTS["unknown_answers"]
DAYS: list[str] = _FACTS["days"]
MONTHS: list[str] = _FACTS["months"]
LENGTHS: list[int] = _FACTS["lengths"]  # days of each month in a common year
ORDINALS: list[str] = _FACTS["ordinals"]
ALPHABET: list[str] = list(_FACTS["alphabet"])
SIGNS: dict[str, str] = _FACTS["signs"]
HEROES: list[str] = _FACTS["heroes"]
NAMES: list[str] = _FACTS["names"]
TRAITS: list[str] = _FACTS["traits"]
PLACES: list[str] = _FACTS["places"]
THINGS: list[str] = _FACTS["things"]
WEATHER: list[str] = _FACTS["weather"]
ENDINGS: list[str] = _FACTS["endings"]
