"""The field `toploc_proofs` of a whole stream, put together of those of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from toploc.protocol import ChoiceProofs, ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Iterable


class Fields:
    """Takes each event's field with the choices that the event ends; `merged` is made when it is asked for."""

    def __init__(self) -> None:
        self._first: ToplocProofs | None = None
        self._error: ToplocProofs | None = None
        self._choices: list[ChoiceProofs] = []
        self._merged: ToplocProofs | None = None
        self.junk: Any = None
        """The first field that is none of version 1, as it came."""

    def __len__(self) -> int:
        return len(self._choices)

    def add(self, value: object, ended: Iterable[int]) -> None:
        """`ended`: whose error it is, where the server has one for all that the event ends and names no choice."""
        self._merged = None
        try:
            field = value if isinstance(value, ToplocProofs) else ToplocProofs.model_validate(value)
        except (ValidationError, RecursionError):
            self.junk = value if self.junk is None else self.junk
            return
        if field.choices is None:
            self._error = self._error or field
            self._choices += [ChoiceProofs(index=index, token_ids=(), error=field.error) for index in ended]
            return
        self._first = self._first or field
        self._choices += [
            choice.model_copy(update={"prompt": choice.prompt or field.prompt}) for choice in field.choices
        ]

    @property
    def merged(self) -> ToplocProofs | None:
        """None if there was none; the error alone where no choice has proofs."""
        if self._first is None:
            return self._error
        if self._merged is None:
            choices = sorted(self._choices, key=lambda choice: choice.index)
            first = next((choice.prompt for choice in choices if choice.prompt is not None), self._first.prompt)
            kept = tuple(c if c.prompt != first else c.model_copy(update={"prompt": None}) for c in choices)
            self._merged = self._first.model_copy(update={"prompt": first, "choices": kept, "error": None})
        return self._merged
