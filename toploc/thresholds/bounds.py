"""Thresholds: the bounds on a chunk's figures, per dtype and chunk length, and where they come from.

All are upper bounds on errors, lower is better; `mismatches` counts of top-k points, never intersections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import InvalidThresholds
from .chunk import (
    Bounds,
    Pair,
    at,
    bounds_of,
    check_integer,
    check_number,
    check_rows,
    check_text,
    fields_of,
    tightened,
)
from .pooled import PooledBounds
from .tokens import TokenBounds

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["DTYPES", "Bounds", "Pair", "Thresholds", "choose_thresholds"]

DTYPES: Final = ("bfloat16", "float16")
"""In which proofs are made."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds by chunk length for one dtype and top-k.

    `provenance` says where they come from. `model` is the model they were calibrated for, None for any.
    `impostor_rate` is the share of proofs of other answers, or of forged ones if that is more, that these bounds
    accept, None where not measured: near 0 the model's proofs discriminate, near 1 they say nothing. `tokens` are the
    bounds of the check on tokens, None where not calibrated; `pooled` those of the check on an answer's pooled error,
    which is off where None. `pairs` have tighter bounds for pairs of engines. Raises InvalidThresholds naming the
    field.
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
    pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("provenance", self.provenance)
        if self.dtype not in DTYPES:
            raise InvalidThresholds(f"dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}")
        check_integer("topk", self.topk, least=1)
        if self.model is not None:
            check_text("model", self.model)
        if self.impostor_rate is not None:
            check_number("impostor_rate", self.impostor_rate, most=1)
        check_rows("bounds", self.bounds)
        for entry in self.bounds:
            if entry.mismatches > self.topk:
                raise InvalidThresholds(f"mismatches: {entry.mismatches} is more than topk, {self.topk}")

    def for_rows(self, rows: int) -> Bounds:
        """The bounds for a chunk of `rows` rows, at least 1."""
        return at(self.bounds, rows)

    @property
    def hidden_size(self) -> int | None:
        """Channels of the states that these are for, None where nothing here depends on them."""
        return self.pooled.noise.hidden_size if self.pooled is not None and self.pooled.noise is not None else None

    def require_hidden_size(self, found: int) -> None:
        """Raises InvalidThresholds where these know the channels of another model's states."""
        if self.hidden_size not in (None, found):
            raise InvalidThresholds(
                f"pooled.noise.hidden_size: thresholds {self.name!r} are for {self.hidden_size} channels, this model's "
                f"states have {found}"
            )

    def for_pair(self, prover: Engine | None, verifier: Engine | None) -> Thresholds:
        """With the bounds of all pairs that these engines are, where those are tighter. `prover` is the prover's own
        word, None if it says nothing: whatever it is, no bound is above the model's own."""
        pairs = [pair for pair in self.pairs if pair.applies(prover, verifier)]
        bounds, provenance = self.bounds, self.provenance
        for pair in pairs:
            bounds = tightened(bounds, pair.bounds)
            provenance += f"; of this pair of engines: {pair.provenance}"
        return replace(self, bounds=bounds, provenance=provenance, pairs=()) if pairs else self

    @classmethod
    def from_dict(cls, values: object) -> Thresholds:
        """Parse what `dataclasses.asdict` or a YAML file gives. Raises InvalidThresholds naming the field."""
        known = fields_of(cls, values)
        bounds, pairs = bounds_of("bounds", known.pop("bounds")), known.pop("pairs", ())
        if not isinstance(pairs, list | tuple):
            raise InvalidThresholds(f"pairs: expected a list, got {pairs!r}")
        models = {"tokens": _model(TokenBounds, known, "tokens"), "pooled": _model(PooledBounds, known, "pooled")}
        return cls(bounds=bounds, pairs=tuple(map(Pair.from_dict, pairs)), **{**known, **models})

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


def choose_thresholds(wanted: str | None, model: str, dtype: str, hidden_size: int) -> Thresholds:
    """Those that were asked for; else those that were calibrated for a model of this name, dtype and hidden size; else
    the paper's.

    Raises InvalidThresholds for some that cannot be read, or are for another dtype or hidden size.
    """
    if wanted is not None:
        chosen = Thresholds.load(wanted)
        if chosen.dtype != dtype:
            raise InvalidThresholds(f"thresholds {chosen.name!r} are for {chosen.dtype}, this server proves {dtype}")
        chosen.require_hidden_size(hidden_size)
        return chosen
    name = model.rstrip("/").rpartition("/")[2]
    folder = resources.files("toploc.configs") / "thresholds"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            bundled = Thresholds.load(file.name.removesuffix(".yaml"))
            named = bundled.model in (model, name)
            if named and bundled.dtype == dtype and bundled.hidden_size in (None, hidden_size):
                return bundled
    return Thresholds.paper(dtype)
