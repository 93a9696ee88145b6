"""An exchange of question and answer, and how its wording is chosen."""

from dataclasses import dataclass, replace
from random import Random

from .facts import Country


def pick(rng: Random, wordings: str) -> str:
    """One of several wordings that are separated by bars."""
    return rng.choice(wordings.split("|"))


def first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, its answer in a sentence, and the same answer in as few words as will do."""

    question: str
    full: str
    brief: str

    def filled(self, **values: object) -> "Exchange":
        return replace(
            self,
            question=self.question.format(**values),
            full=self.full.format(**values),
            brief=self.brief.format(**values),
        )

    def about(self, country: Country) -> "Exchange":
        return self.filled(Name=first_upper(country.name), **country._asdict())
