"""The likeliest tokens of one place, as a server lists them, against a verifier's own longer list.

Two engines agree on log-probabilities up to their noise, which also moves the order of the tokens and the border of the
list. So the verifier lists `MORE` than were asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from math import exp
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MORE: Final = 8
"""Tokens that may lie within the noise of the border; in text of a trained model there are rarely two."""

MASKED: Final = -9999.0
"""What routes write for the log-probability of a token that a grammar does not leave, which is -inf."""
SMALLEST: Final = -700.0
"""Whose reciprocal a float can hold."""

_MARK: Final = "\ue000"

Entry = tuple[str, float]
"""What is said of a token but for its log-probability, and that."""


def marked(text: str, number: int) -> str:
    """The text of a token, where others of the place have it too: an object by text has one value for all of them."""
    return f"{_MARK}{number}{_MARK}{text}"


def _unmarked(text: str) -> str:
    parts = text.split(_MARK, 2)
    return parts[2] if len(parts) == 3 and not parts[0] and parts[1].isdecimal() else text


def entries_of(place: Sequence[Any] | dict[str, Any], *, has_marks: bool = False) -> list[Entry] | None:
    """The tokens of one place: objects with a `logprob`, or by their text or id; None if it is neither."""
    found: list[Entry] = []
    for name, value in place.items() if isinstance(place, dict) else (("", entry) for entry in place):
        logprob = value.get("logprob") if isinstance(value, dict) else value
        if isinstance(logprob, bool) or not isinstance(logprob, int | float):
            return None
        said = {k: v for k, v in value.items() if k != "logprob"} if isinstance(value, dict) else {}
        if said.get("rank") is not None:  # `ranks_fit` says which it may be
            said["rank"] = True
        if has_marks:
            said = {k: _unmarked(v) if isinstance(v, str) else v for k, v in said.items()}
        token = json.dumps([_unmarked(name) if has_marks else name, said], sort_keys=True)
        found.append((token, float(logprob)))
    return found


def with_masked(
    claimed: Sequence[Entry], rehearsed: Sequence[Entry], spelled: Callable[[str], int]
) -> list[Entry] | None:
    """The rehearsed tokens, and beside them those of the claimed ones that a grammar masks too.

    A grammar may leave fewer tokens than are listed. The others are equal, so any of them may stand in the list: each
    that the verifier's own list lacks has to be the text of some token, of which it does not list all. None if one is
    not, of which nothing is known. `spelled`: of how many tokens a text is.
    """
    if not any(logprob == MASKED for _, logprob in rehearsed):
        return [*rehearsed]
    there = Counter(token for token, _ in rehearsed)
    missing = Counter(token for token, logprob in claimed if logprob == MASKED)
    missing -= Counter(token for token, logprob in rehearsed if logprob == MASKED)
    for token, count in missing.items():
        name, said = json.loads(token)
        text = said.get("token", name)
        as_bytes = list(text.encode("utf-8", errors="replace")) if isinstance(text, str) else None
        if as_bytes is None or said.get("bytes") not in (None, as_bytes) or there[token] + count > spelled(text):
            return None
    return [*rehearsed, *((token, MASKED) for token in missing.elements())]


def agree(
    claimed: Sequence[Entry],
    rehearsed: Sequence[Entry],
    asked: int,
    margin: float,
    *,
    is_list: bool,
    chosen_first: bool = True,
) -> list[float] | None:
    """How far each log-probability lies from the rehearsed one; None if the tokens are not those.

    `rehearsed` has the chosen token first, then the likeliest `asked + MORE`. As `is_list`, the claimed ones are in
    that order, and as many as `asked`, the chosen one among them; else they have no order, and the chosen one comes on
    top of them if it is not one of the likeliest. Without `chosen_first` both have the likeliest alone, and the chosen
    one counts for no more than another.

    1. Each is one of the rehearsed ones, none twice, and lies within the margin of it.
    2. There are as many as there have to be. Of two tokens with one text, a list by text has one.
    3. Those of a list begin with the chosen one; the others go by log-probability.
    4. None is left out that is likelier, by more than the margin, than one of them.
    """
    left: dict[str, list[float]] = {}
    for token, logprob in rehearsed:
        left.setdefault(token, []).append(logprob)
    noise = []
    for token, logprob in claimed:  # 1
        there = left.get(token)
        if not there:
            return None
        nearest = min(there, key=lambda one: abs(one - logprob))
        noise.append(abs(nearest - logprob))
        if noise[-1] > margin:
            return None
        there.remove(nearest)
    chosen = rehearsed[0][0] if rehearsed and chosen_first else None
    others = [logprob for token, logprob in claimed if token != chosen]
    if is_list:  # 2
        if len(claimed) != asked:
            return None
        if claimed and (chosen not in (None, claimed[0][0]) or others != sorted(others, reverse=True)):  # 3
            return None
    else:
        doubled = len(rehearsed) - len({token for token, _ in rehearsed})
        border = sorted((logprob for _, logprob in rehearsed), reverse=True)[:asked]
        is_likely = not border or not chosen_first or rehearsed[0][1] >= border[-1] - margin
        least = (asked if is_likely else asked + 1) - doubled
        if border and border[-1] == MASKED:  # any of which may share a text
            least = min(least, len({token for token, logprob in rehearsed if logprob > MASKED}))
        if not least <= len(claimed) <= asked + chosen_first:
            return None
    rest = [logprob for there in left.values() for logprob in there]
    if others and rest and max(rest) > min(others) + margin:  # 4
        return None
    return noise


def ranks_fit(
    place: Sequence[Any] | dict[str, Any],
    likeliest: Sequence[float],
    margin: float,
    *,
    tokens: int | None = None,
    of_one: bool = False,
) -> bool:
    """Whether the tokens of a place can have the ranks that it says, by their log-probabilities.

    `likeliest`: log-probabilities of the likeliest tokens, to which `margin` is as far as they may be off; empty if
    none are known. `tokens`: in the vocabulary. `of_one`: whether probabilities sum up to one, which logits do not.

    1. No rank is less than that of a token behind all that are likelier for certain, and none beyond the vocabulary.
    2. None is more than there are tokens as likely, where the likeliest are those and others.
    3. Nor than there can be, since all of them share a probability of one.
    """
    for value in place.values() if isinstance(place, dict) else place:
        rank = value.get("rank") if isinstance(value, dict) else None
        if rank is None:
            continue
        logprob = value["logprob"]
        likelier = sum(one > logprob + margin for one in likeliest)
        if type(rank) is not int or not likelier < rank <= (tokens or rank):  # 1
            return False
        as_likely = sum(one >= logprob - margin for one in likeliest)
        if as_likely < len(likeliest) and rank > max(1, as_likely):  # 2
            return False
        if of_one and 0 > logprob > SMALLEST and rank > exp(margin - logprob):  # 3
            return False
    return True
