"""JSON that says one thing: no duplicate names, no constants, no depth that exhausts a stack."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ..errors import MalformedEvidence
from .shapes import MAX_SHOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES: Final = 16 * 2**20
"""Of one request and response. Stops bodies that fill the memory; 100,000 tokens and their proofs are 2 MB."""

MAX_DEPTH: Final = 64
"""Of nested JSON. Stops bodies that exhaust the stack of whatever walks them later, the chat template for one."""

_Place = tuple["_Place", str | int] | None
"""Where a value stands: in what, and under which name or number there."""


def load_json(data: bytes | str) -> object:
    """What a JSON text says, where it says one thing. Raises MalformedEvidence."""
    try:
        return json.loads(data, parse_constant=_no_constant, object_pairs_hook=_object)
    except RecursionError:
        raise MalformedEvidence("", f"nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:  # of JSON, of UTF-8, of integers with thousands of digits
        raise MalformedEvidence("", f"not JSON: {short(error)}") from None


def walk(value: object) -> None:
    """Refuses what JSON cannot carry on: infinities, NaN, lone surrogates; and what is nested too deep.

    The request's `metadata` may have half of a surrogate pair, as cutting UTF-16 makes it: nothing reads it here.
    """
    if problem := _problem(value):
        fail("", problem)
    level: list[tuple[_Place, object]] = [(None, value)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[_Place, object]] = []
        for place, item in level:
            entries: Iterable[tuple[str | int, object]] = ()
            if isinstance(item, dict):
                entries = item.items()
                if problem := next(filter(None, map(_problem, item)), None):
                    fail(_path(place), problem)
            elif isinstance(item, list):
                entries = enumerate(item)
            for name, entry in entries:
                if isinstance(entry, dict | list):
                    below.append(((place, name), entry))
                elif isinstance(entry, float | str) and (problem := _problem(entry)):
                    path = _path((place, name))
                    if not (isinstance(entry, str) and path.startswith("request.metadata.")):
                        fail(path, problem)
        level = below
        if not level:
            return
    fail(_path(level[0][0]), f"nested more than {MAX_DEPTH} deep")


def _problem(leaf: object) -> str | None:
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return "a number that is not finite"
    if isinstance(leaf, str) and not leaf.isascii() and any("\ud800" <= c <= "\udfff" for c in leaf):
        return "text with half of a surrogate pair"
    return None


def _path(place: _Place) -> str:
    """Made only where something is wrong: names may be megabytes long, and places are many."""
    parts: list[str] = []
    while place is not None:
        place, name = place
        parts.append(f"[{name}]" if isinstance(name, int) else f".{name[:MAX_SHOWN]}")
    return short("".join(reversed(parts)).removeprefix("."))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys, one reader takes the first and another the last: so none may take either."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("an object has the same key twice")
    return entries


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def fail(field: str, message: str) -> NoReturn:
    raise MalformedEvidence(field, message)
