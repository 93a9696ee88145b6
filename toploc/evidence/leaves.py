"""Two JSON objects compared leaf by leaf: the response that a client was given, and the one that a verifier rehearsed.

Nothing in here knows an engine or a route; `toploc/leaves.py` says what a leaf is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ..leaves import Path, is_free, leaves, pattern_of, spelled
from .alternatives import MORE, agree, entries_of, ranks_fit, with_masked
from .forms import Forms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

SHOWN: Final = 100
"""Characters of a value that a difference repeats."""

PATTERNS: Final = 100
"""Kinds of leaves that a comparison lists. Stops objects of a thousand fields from filling reports."""

LOGPROBS: Final = frozenset({"logprobs", "prompt_logprobs"})
"""Fields whose numbers two engines agree on up to their noise."""

WEIGHT_VERSIONS: Final = "choices[].weight_versions"
"""Where an engine says which weights made which tokens, by names that its operator gives them."""

OF_THE_ENGINE: Final = frozenset(
    """choices[].routed_experts choices[].sampling_mask prompt_token_id_logprobs kv_transfer_params
    ec_transfer_params sglext.routed_experts sglext.spec_tokens_details choices[].hidden_states
    choices[].message.hidden_states""".split()  # noqa: SIM905
)
"""Where an engine says what its steps did, or where their caches are: no tokens tell it, and no rehearsal makes it."""

ABSENT: Final = object()
"""In place of a value that is not there."""

Kind = Literal["differs", "unknown", "missing", "form", "unfinished"]


def _of_none(_: str) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How log-probabilities are compared.

    `margin`: how far two may lie from each other. `asked`: the fields in which the rehearsed object lists `MORE` of the
    likeliest tokens than were asked for, and that number. `spelled`: of how many tokens a text is. `tokens`: in
    the vocabulary. `of_one`: whether they are logarithms of probabilities, which sum up to one, or logits.
    `chosen_first`: whether a list of the likeliest begins with the token that was chosen, however likely it is.
    """

    margin: float
    asked: Mapping[str, int] = field(default_factory=dict)
    spelled: Callable[[str], int] = field(default=_of_none, repr=False)
    tokens: int | None = None
    of_one: bool = False
    chosen_first: bool = True

    def ranks_fit(self, place: Any, likeliest: Sequence[float] = ()) -> bool:
        return ranks_fit(place, likeliest, self.margin, tokens=self.tokens, of_one=self.of_one)


@dataclass(frozen=True, slots=True)
class Difference:
    """One leaf on which the two do not agree; the values as JSON, None for none.

    `differs`: both say something about it. `form`, `unfinished`: the same, in ways of which neither has to be wrong
    (`forms.py`). `unknown`: the rehearsed one has no such field. `missing`: the claimed one has none.
    """

    kind: Kind
    path: str
    claimed: str | None
    rehearsed: str | None


@dataclass(slots=True)
class Comparison:
    """What two objects have in common.

    `leaves`: how many agree; `rehearsed`: their kinds, with `[]` for places in lists. `free`: the kinds that nothing
    was held against. `unbound`: fields of log-probabilities for which there was nothing. `first`: the first difference
    of each kind. `noise`: how far each log-probability lies from the rehearsed one, nats.
    """

    leaves: int = 0
    rehearsed: dict[str, None] = field(default_factory=dict)
    free: dict[str, None] = field(default_factory=dict)
    unbound: dict[str, None] = field(default_factory=dict)
    first: dict[Kind, Difference] = field(default_factory=dict)
    noise: list[float] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not self.first

    def agree(self, path: Path) -> None:
        self.leaves += 1
        _list(self.rehearsed, path)

    def note(self, kind: Kind, path: Path, claimed: object, rehearsed: object) -> None:
        if kind not in self.first:
            self.first[kind] = Difference(kind, spelled(path), _shown(claimed), _shown(rehearsed))


def compare(
    claimed: Mapping[str, Any],
    rehearsed: Mapping[str, Any],
    *,
    logprobs: Logprobs | None = None,
    unbound: Collection[str] = (),
    without: Sequence[str] = (),
    partial: bool = False,
    forms: Forms = Forms(),  # noqa: B008 (frozen)
) -> Comparison:
    """All leaves of the two, but those below the fields `without`.

    What the claimed one says in fields of the kinds `unbound`, or of log-probabilities without `logprobs`, is listed.
    Of a `partial` one nothing is missing. `forms`: in which ways the two may say the same.
    """
    walk = _Walk(Comparison(), logprobs, unbound, partial, forms)
    left = {name: value for name, value in claimed.items() if name not in without}
    right = {name: value for name, value in rehearsed.items() if name not in without}
    walk.objects((), left, right)
    return walk.found


def compare_by_choice(
    claimed: Mapping[str, Any], rehearsed: Mapping[str, Any], unproven: Collection[int], **options: Any
) -> dict[int | None, Comparison]:
    """Of a response in which these choices have no proofs: of each other choice, and of the rest, which is None's.

    `options` are those of `compare`. What sums up all choices is not bound.
    """
    left, right = (
        {choice.get("index"): choice for choice in response.get("choices") or ()} for response in (claimed, rehearsed)
    )
    options["unbound"] = {*options.get("unbound", ()), "usage"}
    found: dict[int | None, Comparison] = {
        index: compare({"choices": [choice]}, {"choices": [right.get(index)]}, **options)
        for index, choice in left.items()
        if index not in unproven
    }
    without = [*options.pop("without", ()), "choices"]
    found[None] = compare(claimed, rehearsed, without=without, **options)
    if not found[None].unbound:
        found[None].unbound["choices"] = None
    return found


@dataclass(frozen=True, slots=True)
class _Walk:
    found: Comparison
    logprobs: Logprobs | None
    unbound: Collection[str]
    partial: bool
    forms: Forms

    def differ(self, path: Path, claimed: object, rehearsed: object) -> None:
        self.found.note(self.forms.kind(path, claimed, rehearsed), path, claimed, rehearsed)

    def values(self, path: Path, claimed: object, rehearsed: object) -> None:
        if is_free(path, claimed):
            if claimed is not None:
                _list(self.found.free, path)
        elif _says_nothing(claimed) and _says_nothing(rehearsed):
            pass
        elif self._is_unbound(path, rehearsed):
            _list(self.found.unbound, path)
        elif _says_nothing(rehearsed) and _is_all_free(self.found, path, claimed):
            pass
        elif rehearsed is ABSENT and isinstance(claimed, dict) and self._has_unbound(path, claimed):
            self.objects(path, claimed, {})
        elif rehearsed is ABSENT:
            self.found.note("unknown", *_first_leaf(path, claimed, None))
        elif self._asked(path) and isinstance(claimed, list) and isinstance(rehearsed, list):
            self.alternatives(path, claimed, rehearsed)
        elif isinstance(claimed, dict) and isinstance(rehearsed, dict):
            self.objects(path, claimed, rehearsed)
        elif isinstance(claimed, list) and isinstance(rehearsed, list):
            self.lists(path, claimed, rehearsed)
        elif isinstance(claimed, dict | list) or not self.equal(path, claimed, rehearsed):
            self.differ(*_first_leaf(path, claimed, rehearsed))
        else:
            self.found.agree(path)

    def objects(self, path: Path, claimed: Mapping[str, Any], rehearsed: Mapping[str, Any]) -> None:
        is_ranked = "rank" in claimed and self.logprobs is not None and entries_of([claimed]) is not None
        if is_ranked and self.logprobs is not None and not self.logprobs.ranks_fit([claimed]):
            self.differ((*path, "rank"), claimed["rank"], rehearsed.get("rank"))
        for name, value in claimed.items():
            self.values((*path, name), value, rehearsed.get(name, ABSENT))
        for name, value in () if self.partial else rehearsed.items():
            below = (*path, name)
            if name not in claimed and not _says_nothing(value) and not _is_all_free(None, below, value):
                self.found.note("missing", *_first_leaf(below, None, value))

    def lists(self, path: Path, claimed: Sequence[Any], rehearsed: Sequence[Any]) -> None:
        if len(claimed) != len(rehearsed):
            self.differ(path, _Items(len(claimed)), _Items(len(rehearsed)))
        for place, (left, right) in enumerate(zip(claimed, rehearsed, strict=False)):
            self.values((*path, place), left, right)

    def _is_unbound(self, path: Path, rehearsed: object) -> bool:
        if path[-1] in LOGPROBS and self.logprobs is None and not _says_nothing(rehearsed):
            return True
        return bool(self.unbound) and pattern_of(path) in self.unbound

    def _has_unbound(self, path: Path, claimed: Mapping[str, Any]) -> bool:
        """Whether an object may have such fields, and says something."""
        begin = f"{pattern_of(path)}."
        says = any(leaf is not None and leaf != {} for _, leaf in leaves(path, claimed))
        return says and any(pattern.startswith(begin) for pattern in self.unbound)

    def _asked(self, path: Path) -> int:
        """For how many tokens, where the rehearsed list has more; else 0."""
        return self.logprobs.asked.get(str(path[-1]), 0) if self.logprobs is not None else 0

    def equal(self, path: Path, claimed: object, rehearsed: object) -> bool:
        """Of leaves. In JSON 1 and 1.0 are one number, and true is none."""
        if isinstance(claimed, bool) or isinstance(rehearsed, bool):
            return claimed is rehearsed
        if isinstance(rehearsed, float) and isinstance(claimed, int | float) and LOGPROBS.intersection(path):
            self.found.noise.append(abs(claimed - rehearsed))
            return True
        if path[-1] == "rank" and LOGPROBS.intersection(path):  # noise moves it, and the log-probability says it too
            return isinstance(claimed, int) and isinstance(rehearsed, int)
        return claimed == rehearsed

    def alternatives(self, path: Path, claimed: Sequence[Any], rehearsed: Sequence[Any]) -> None:
        """The likeliest tokens, of one place as a list of objects, or of each place as an object of tokens."""
        if any(isinstance(entry, dict) and _names_token(entry) for entry in rehearsed):
            self.place(path, claimed, rehearsed, self._asked(path))
            return
        if len(claimed) != len(rehearsed):
            self.differ(path, _Items(len(claimed)), _Items(len(rehearsed)))
        for place, (left, right) in enumerate(zip(claimed, rehearsed, strict=False)):
            below = (*path, place)
            if isinstance(left, dict) and isinstance(right, dict):
                self.place(below, left, right, self._asked(path))
            else:
                self.values(below, left, right)

    def place(self, path: Path, claimed: Any, rehearsed: Any, asked: int) -> None:
        left, right = entries_of(claimed), entries_of(rehearsed, has_marks=True)
        noise = None
        if left is not None and right is not None and self.logprobs is not None:
            right = with_masked(left, right, self.logprobs.spelled)
            if right is None:
                _list(self.found.unbound, path)
                return
            noise = agree(
                left,
                right,
                asked,
                self.logprobs.margin,
                is_list=isinstance(rehearsed, list),
                chosen_first=self.logprobs.chosen_first,
            )
            likeliest = sorted((logprob for _, logprob in right), reverse=True)[: asked + MORE]
            if not self.logprobs.ranks_fit(claimed, likeliest):
                noise = None
        if noise is None:
            self.differ(path, claimed, rehearsed)
            return
        self.found.noise += noise
        self.found.agree(path)


def has_several_weights(choice: Mapping[str, Any]) -> bool:
    """Whether a choice's `weight_versions` say more than that one name was in use throughout."""
    spans = choice.get("weight_versions")
    return isinstance(spans, list) and len(spans) > 1


def _names_token(entry: Mapping[str, Any]) -> bool:
    """Whether it is of one token, and no object of tokens by their text, where these are numbers."""
    return isinstance(entry.get("token"), str) or isinstance(entry.get("token_id"), int)


def _is_all_free(found: Comparison | None, path: Path, value: object) -> bool:
    """Whether a value that one of the two lacks has free leaves, and no others. A list has a length, which is not."""
    said = [(below, leaf) for below, leaf in leaves(path, value) if leaf is not None]
    free = bool(said) and all(is_free(below, leaf) for below, leaf in said)
    free = free and not any(isinstance(part, int) for below, _ in said for part in below[len(path) :])
    if free and found is not None:
        for below, _ in said:
            _list(found.free, below)
    return free


def _first_leaf(path: Path, claimed: object, rehearsed: object) -> tuple[Path, object, object]:
    """The first leaf of the one that has some."""
    if not isinstance(claimed, dict | list) and not isinstance(rehearsed, dict | list):
        return path, claimed, rehearsed
    if isinstance(claimed, dict | list):
        below, leaf = next(leaves(path, claimed))
        return below, leaf, None if isinstance(rehearsed, dict | list) else rehearsed
    below, leaf = next(leaves(path, rehearsed))
    return below, claimed, leaf


def _says_nothing(value: object) -> bool:
    return value is None or value is ABSENT or value == []


def _list(patterns: dict[str, None], path: Path) -> None:
    if len(patterns) < PATTERNS:
        patterns[pattern_of(path)] = None


class _Items:
    """A length, where two lists differ in it."""

    def __init__(self, count: int) -> None:
        self.count = count


def _shown(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, _Items):
        return f"{value.count} items"
    text = json.dumps(value[:SHOWN] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
