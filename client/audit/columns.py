"""Rollouts in tables: which column has what, and each row as evidence of tokens that were asked for with tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import orjson

from toploc.errors import ToplocError
from toploc.protocol import FIELD_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Part(NamedTuple):
    """A part of a rollout: the columns that it is looked for in, the first that is there, and what these have to hold.

    `kinds`: of `ids`, `text`, `object`, `integer`.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    required: bool = False


PARTS: Final[Mapping[str, Part]] = {
    "prompt_token_ids": Part(("prompt_token_ids", "prompt_ids"), ("ids",), required=True),
    "token_ids": Part(("token_ids", "completion_token_ids", "completion_ids"), ("ids",), required=True),
    "proofs": Part((FIELD_NAME, "proofs"), ("text", "object"), required=True),
    "sampling_params": Part(("sampling_params",), ("text", "object")),
    "finish_reason": Part(("finish_reason",), ("text",)),
    "choice": Part(("choice", "choice_index"), ("integer",)),
    "id": Part(("id",), ("text", "integer")),
}

KINDS: Final = {
    "ids": "lists of integers",
    "text": "text (JSON)",
    "object": "structs",
    "integer": "integers",
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns by the part of a rollout that they hold, as they were given; `sampling_params` of rows that have none."""

    given: Mapping[str, str] = field(default_factory=dict)
    sampling_params: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, text: str, sampling_params: str | None = None) -> Self:
        """From `prompt_token_ids=prompt_ids,…` and a JSON object. Raises ToplocError."""
        given: dict[str, str] = {}
        for pair in filter(None, text.split(",")):
            part, equals, column = (word.strip() for word in pair.partition("="))
            if not equals or not column:
                raise ToplocError(f"--columns: {pair!r}: expected PART=COLUMN")
            if part not in PARTS:
                raise ToplocError(f"--columns: {part}: no part of a rollout; known are {', '.join(PARTS)}")
            given[part] = column
        return cls(given, None if sampling_params is None else _options(sampling_params))

    def find(self, table: str, kinds: Mapping[str, str]) -> dict[str, str]:
        """The column of each part that a table has. `kinds`: of its columns; `table`: its name, for messages.

        Raises ToplocError that names the column and what to do.
        """
        found = {}
        for name, part in PARTS.items():
            wanted = [self.given[name]] if name in self.given else part.names
            column = next((column for column in wanted if column in kinds), None)
            if column is not None:
                _check_kind(table, name, column, kinds[column])
                found[name] = column
            elif part.required or name in self.given:
                raise ToplocError(
                    f"{table}: has no column {wanted[0]!r} with the {name} of rollouts; it has "
                    f"{', '.join(kinds) or 'none'}; give --columns {name}=COLUMN"
                )
        if "sampling_params" not in found and self.sampling_params is None:
            raise ToplocError(
                f"{table}: has no column 'sampling_params', without which nobody can tell how tokens were to be chosen "
                "and where answers were to end; give --columns sampling_params=COLUMN, or for all rows "
                '--sampling-params \'{"temperature": 1.0, "max_tokens": 1024}\''
            )
        return found

    def evidence(self, row: Mapping[str, Any], found: Mapping[str, str]) -> bytes:
        """A row as evidence of `/inference/v1/generate`, in JSON. Raises ValueError that names the column."""
        values = {name: row[column] for name, column in found.items()}
        for name, part in PARTS.items():
            if part.required and values[name] is None:
                raise ValueError(f"column {found[name]!r} is empty")
        options = values.get("sampling_params")
        options = self.sampling_params or {} if options is None else _object(options, found, "sampling_params")
        index = values.get("choice") or 0
        proofs = _of_choice(_object(values["proofs"], found, "proofs"), index)
        if index and isinstance(options.get("seed"), int):
            options = {**options, "seed": options["seed"] + index}  # vllm/v1/engine/parallel_sampling.py
        choice = {"index": 0, "token_ids": values["token_ids"]}
        if values.get("finish_reason") is not None:
            choice["finish_reason"] = values["finish_reason"]
        item = {
            "request": {"token_ids": values["prompt_token_ids"], "sampling_params": {**options, "n": 1}},
            "response": {"request_id": str(values.get("id") or ""), "choices": [choice], FIELD_NAME: proofs},
            "partial": True,
        }
        return orjson.dumps(item)


def _check_kind(table: str, name: str, column: str, kind: str) -> None:
    part = PARTS[name]
    if kind not in part.kinds:
        wanted = " or ".join(KINDS[one] for one in part.kinds)
        raise ToplocError(
            f"{table}: column {column!r}, the {name} of rollouts, holds {KINDS.get(kind, kind)}, expected {wanted}; "
            f"give --columns {name}=COLUMN with another, or write it as such"
        )


def _options(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ToplocError("--sampling-params: expected a JSON object of vLLM's SamplingParams: '{\"max_tokens\": 8}'")
    return value


def _object(value: Any, found: Mapping[str, str], name: str) -> dict[str, Any]:
    """Of JSON text or a struct, whose fields are there in every row."""
    if isinstance(value, str | bytes):
        try:
            value = orjson.loads(value)
        except ValueError:
            value = None
    else:
        value = _without_nulls(value)
    if not isinstance(value, dict):
        raise ValueError(f"column {found[name]!r} has no JSON object")
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _of_choice(proofs: dict[str, Any], index: int) -> dict[str, Any]:
    """Of one choice alone, numbered 0; of all, where they have none of this number."""
    choices: Sequence[Any] = proofs.get("choices") or ()
    if len(choices) > 1 or index:
        kept = [choice for choice in choices if isinstance(choice, dict) and choice.get("index") == index]
        kept = kept or ([choices[0]] if len(choices) == 1 else [])
        choices = [{**choice, "index": 0} for choice in kept] or choices
    return {**proofs, "choices": choices} if choices else proofs
