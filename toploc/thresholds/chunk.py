"""Bounds on the figures of a chunk, and tighter ones for a pair of engines."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..engine import Facts
from ..errors import InvalidThresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine import Engine


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest figures that pass, for chunks of at least `rows` rows and fewer than the next entry's.

    `mismatches`: points whose sign or exponent differs. `mantissa_mean`, `mantissa_median`: absolute
    difference of the mantissas as integers, over points of equal exponent. `decoy_hits`: None is the bound
    derived for each chunk (`toploc.proofs.decoys`). Raises InvalidThresholds naming the field.
    """

    rows: int
    mismatches: int
    mantissa_mean: float
    mantissa_median: float
    decoy_hits: int | None = None

    def __post_init__(self) -> None:
        check_integer("rows", self.rows, least=1)
        check_integer("mismatches", self.mismatches)
        check_number("mantissa_mean", self.mantissa_mean)
        check_number("mantissa_median", self.mantissa_median)
        if self.decoy_hits is not None:
            check_integer("decoy_hits", self.decoy_hits)


@dataclass(frozen=True, slots=True)
class Pair:
    """Bounds for answers of one engine that are verified by another, each as far as its facts tell.

    They are held beside the model's own, never in their place: a prover that says that it is another engine gets the
    model's own. Raises InvalidThresholds naming the field.
    """

    prover: Facts
    verifier: Facts
    bounds: tuple[Bounds, ...]
    provenance: str

    def __post_init__(self) -> None:
        check_text("pairs.provenance", self.provenance)
        check_rows("pairs.bounds", self.bounds)
        if any(entry.decoy_hits is not None for entry in self.bounds):
            raise InvalidThresholds("pairs.bounds: decoy_hits do not depend on engines; leave it out")

    def applies(self, prover: Engine | None, verifier: Engine | None) -> bool:
        return self.prover.describe(prover) and self.verifier.describe(verifier)

    @classmethod
    def from_dict(cls, values: object) -> Pair:
        """Parse what `dataclasses.asdict` or a YAML file gives. Raises InvalidThresholds naming the field."""
        known = fields_of(cls, values)
        sides = {side: facts_of(f"pairs.{side}", known[side]) for side in ("prover", "verifier")}
        return cls(bounds=bounds_of("pairs.bounds", known["bounds"]), provenance=known["provenance"], **sides)


def at(bounds: Sequence[Bounds], rows: int) -> Bounds:
    """The entry for a chunk of `rows` rows, at least 1."""
    return next(entry for entry in reversed(bounds) if entry.rows <= max(rows, 1))


def tightened(own: Sequence[Bounds], other: Sequence[Bounds]) -> tuple[Bounds, ...]:
    """At every length the smaller of both bounds on each figure; decoy hits are `own`'s."""
    entries = []
    for rows in sorted({entry.rows for entry in (*own, *other)}):
        ours, theirs = at(own, rows), at(other, rows)
        entries.append(
            Bounds(
                rows,
                min(ours.mismatches, theirs.mismatches),
                min(ours.mantissa_mean, theirs.mantissa_mean),
                min(ours.mantissa_median, theirs.mantissa_median),
                ours.decoy_hits,
            )
        )
    return tuple(entries)


def bounds_of(name: str, entries: object) -> tuple[Bounds, ...]:
    """A file's list. Raises InvalidThresholds naming the field."""
    if not isinstance(entries, list | tuple):
        raise InvalidThresholds(f"{name}: expected a list, got {entries!r}")
    return tuple(Bounds(**fields_of(Bounds, entry)) for entry in entries)


def facts_of(name: str, values: object) -> Facts:
    """A file's mapping. Raises InvalidThresholds naming the field."""
    try:
        return Facts.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidThresholds(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from None


def fields_of(cls: type[Any], values: object) -> dict[str, Any]:
    """A file's mapping for a dataclass: no unknown key, and none missing. Raises InvalidThresholds."""
    if not isinstance(values, dict):
        raise InvalidThresholds(f"expected a mapping for {cls.__name__}, got {values!r}")
    names = {field.name for field in fields(cls)}
    if unknown := values.keys() - names:
        raise InvalidThresholds(f"{min(map(str, unknown))}: unknown key; known are {', '.join(sorted(names))}")
    for field in fields(cls):
        if field.name not in values and field.default is MISSING:
            raise InvalidThresholds(f"{field.name}: missing")
    return dict(values)


def check_rows(name: str, bounds: Sequence[Bounds]) -> None:
    rows = [entry.rows for entry in bounds]
    if not rows or rows[0] != 1 or rows != sorted(set(rows)):
        raise InvalidThresholds(f"{name}: expected entries of ascending rows from 1, got {rows}")


def check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidThresholds(f"{name}: expected text, got {value!r}")


def check_integer(name: str, value: object, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidThresholds(f"{name}: expected an integer of at least {least}, got {value!r}")


def check_number(name: str, value: object, most: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or math.isinf(value):  # type: ignore[operator, arg-type]
        raise InvalidThresholds(f"{name}: expected a finite number of at least 0, got {value!r}")
