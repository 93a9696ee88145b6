"""Options that an answer without proofs may have been drawn under, where its request does not say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from ..errors import MalformedEvidence
from ..tokens.sampling import Sampling
from .wording import problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS: Final[Mapping[str, float]] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""Those that models have defaults of, in `generation_config.json`; and OpenAI's defaults."""

MOST: Final = 8
"""Candidates. Stops a small body from asking for hundreds of prefills."""


def candidates_in(value: object) -> tuple[dict[str, float], ...] | None:
    """Of the evidence's `sampling`, None where it has none. Raises MalformedEvidence."""
    if value is None:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= MOST:
        raise MalformedEvidence("sampling", f"expected a list of 1 to {MOST} objects of options")
    for place, one in enumerate(value):
        field = f"sampling[{place}]"
        if not isinstance(one, dict) or not one.keys() <= OPTIONS.keys():
            raise MalformedEvidence(field, f"expected an object of {', '.join(OPTIONS)}")
        try:
            Sampling.model_validate(one)
        except ValidationError as error:
            path, problem = problem_of(error)
            raise MalformedEvidence(f"{field}{path}", problem) from None
    return tuple(value)
