"""Thresholds: the bounds on a chunk's figures, per dtype and chunk length, and where they come from.

All are upper bounds on errors, lower is better; `mismatches` counts of top-k points, never intersections.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import InvalidThresholds
from .pooled import PooledBounds
from .tokens import TokenBounds

DTYPES: Final = ("bfloat16", "float16")
"""In which proofs are made."""

Model = TypeVar("Model", bound=BaseModel)


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
        _check_integer("rows", self.rows, least=1)
        _check_integer("mismatches", self.mismatches)
        _check_number("mantissa_mean", self.mantissa_mean)
        _check_number("mantissa_median", self.mantissa_median)
        if self.decoy_hits is not None:
            _check_integer("decoy_hits", self.decoy_hits)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds by chunk length for one dtype and top-k.

    `provenance` says where they come from. `model` is the model they were calibrated for, None for any.
    `impostor_rate` is the share of proofs of other answers, or of forged ones if that is more, that these bounds
    accept, None where not measured: near 0 the model's proofs discriminate, near 1 they say nothing. `tokens` are the
    bounds of the check on tokens, None where not calibrated; `pooled` those of the check on an answer's pooled error,
    which is off where None. Raises InvalidThresholds naming the field.
    """

    name: str
    dtype: str
    topk: int
    provenance: str
    bounds: tuple[Bounds, ...]
    model: str | None = None
    impostor_rate: float | None = None
    tokens: TokenBounds | None = None
    pooled: PooledBounds | None = None

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        _check_text("provenance", self.provenance)
        if self.dtype not in DTYPES:
            raise InvalidThresholds(f"dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}")
        _check_integer("topk", self.topk, least=1)
        if self.model is not None:
            _check_text("model", self.model)
        if self.impostor_rate is not None:
            _check_number("impostor_rate", self.impostor_rate, most=1)
        rows = [entry.rows for entry in self.bounds]
        if not rows or rows[0] != 1 or rows != sorted(set(rows)):
            raise InvalidThresholds(f"bounds: expected entries of ascending rows from 1, got {rows}")
        for entry in self.bounds:
            if entry.mismatches > self.topk:
                raise InvalidThresholds(f"mismatches: {entry.mismatches} is more than topk, {self.topk}")

    def for_rows(self, rows: int) -> Bounds:
        """The bounds for a chunk of `rows` rows, at least 1."""
        return next(entry for entry in reversed(self.bounds) if entry.rows <= max(rows, 1))

    @classmethod
    def from_dict(cls, values: object) -> Thresholds:
        """Parse what `dataclasses.asdict` or a YAML file gives. Raises InvalidThresholds naming the field."""
        known = _fields_of(cls, values)
        entries = known.pop("bounds")
        if not isinstance(entries, list | tuple):
            raise InvalidThresholds(f"bounds: expected a list, got {entries!r}")
        parsed = tuple(Bounds(**_fields_of(Bounds, entry)) for entry in entries)
        models = {"tokens": _model(TokenBounds, known, "tokens"), "pooled": _model(PooledBounds, known, "pooled")}
        return cls(bounds=parsed, **{**known, **models})

    @classmethod
    def load(cls, name_or_path: str | Path) -> Thresholds:
        """Read a YAML file: a path, or the name of one in `configs/thresholds` without its ending.

        Raises InvalidThresholds if it cannot be read or is not valid.
        """
        text = str(name_or_path)
        try:
            if text.endswith((".yaml", ".yml")):
                content = Path(text).read_text("utf-8")
            else:
                folder = resources.files("toploc.configs") / "thresholds"
                content = (folder / f"{text}.yaml").read_text("utf-8")
            values = yaml.safe_load(content)
        except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise InvalidThresholds(f"thresholds {text!r} cannot be read: {error}") from None
        return cls.from_dict(values)

    @classmethod
    def paper(cls, dtype: str = "bfloat16") -> Thresholds:
        """The defaults for an unknown model and pair of engines. Raises InvalidThresholds for another
        dtype."""
        if dtype not in DTYPES:
            raise InvalidThresholds(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        return _paper(dtype)


@cache
def _paper(dtype: str) -> Thresholds:
    return Thresholds.load(f"paper-{dtype}")


def _model(cls: type[Model], values: dict[str, Any], name: str) -> Model | None:
    if values.get(name) is None:
        return None
    try:
        return cls.model_validate(values[name])
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidThresholds(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from None


def _fields_of(cls: type[Any], values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InvalidThresholds(f"expected a mapping for {cls.__name__}, got {values!r}")
    names = {field.name for field in fields(cls)}
    if unknown := values.keys() - names:
        raise InvalidThresholds(f"{min(map(str, unknown))}: unknown key; known are {', '.join(sorted(names))}")
    for field in fields(cls):
        if field.name not in values and field.default is MISSING:
            raise InvalidThresholds(f"{field.name}: missing")
    return dict(values)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidThresholds(f"{name}: expected text, got {value!r}")


def _check_integer(name: str, value: object, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidThresholds(f"{name}: expected an integer of at least {least}, got {value!r}")


def _check_number(name: str, value: object, most: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or math.isinf(value):  # type: ignore[operator, arg-type]
        raise InvalidThresholds(f"{name}: expected a finite number of at least 0, got {value!r}")


def choose_thresholds(wanted: str | None, model: str, dtype: str) -> Thresholds:
    """Those that were asked for; else those that were calibrated for a model of this name and dtype; else the paper's.

    Raises InvalidThresholds for some that cannot be read, or are for another dtype.
    """
    if wanted is not None:
        chosen = Thresholds.load(wanted)
        if chosen.dtype != dtype:
            raise InvalidThresholds(f"thresholds {chosen.name!r} are for {chosen.dtype}, this server proves {dtype}")
        return chosen
    name = model.rstrip("/").rpartition("/")[2]
    folder = resources.files("toploc.configs") / "thresholds"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            bundled = Thresholds.load(file.name.removesuffix(".yaml"))
            if bundled.model in (model, name) and bundled.dtype == dtype:
                return bundled
    return Thresholds.paper(dtype)
