"""The field `toploc_proofs` of a whole stream, put together of those of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from toploc.protocol import ChoiceProofs, ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Iterable


class Fields:
    """Takes each event's field; `merged` is made when it is asked for.

    A field has the choice that the event ends, and may have those again that ended before it.
    """

    def __init__(self) -> None:
        self._first: ToplocProofs | None = None
        self._error: ToplocProofs | None = None
        self._choices: dict[int, ChoiceProofs] = {}
        self._merged: ToplocProofs | None = None
        self.count = 0
        """Fields that came, of whatever."""
        self.junk: Any = None
        """The first field that is none of version 1, as it came."""

    def __len__(self) -> int:
        """Choices with proofs, or with an error in their place."""
        return len(self._choices)

    def add(self, value: object, ended: Iterable[int]) -> int | None:
        """The first choice of which something else was said before, None for none.

        `ended`: whose error it is, where the server has one for all that the event ends and names no choice.
        """
        self._merged = None
        self.count += 1
        try:
            field = value if isinstance(value, ToplocProofs) else ToplocProofs.model_validate(value)
        except (ValidationError, RecursionError):
            self.junk = value if self.junk is None else self.junk
            return None
        if field.choices is None:
            self._error = self._error or field
            named = [ChoiceProofs(index=index, token_ids=(), error=field.error) for index in ended]
        else:
            self._first = self._first or field
            named = [choice.model_copy(update={"prompt": choice.prompt or field.prompt}) for choice in field.choices]
        said = [(self._choices.setdefault(choice.index, choice), choice) for choice in named]
        return next((choice.index for before, choice in said if not _same(before, choice)), None)

    @property
    def merged(self) -> ToplocProofs | None:
        """None if there was none; the error alone where no choice has proofs."""
        if self._first is None:
            return self._error
        if self._merged is None:
            choices = [self._choices[index] for index in sorted(self._choices)]
            first = next((choice.prompt for choice in choices if choice.prompt is not None), self._first.prompt)
            kept = tuple(c if c.prompt != first else c.model_copy(update={"prompt": None}) for c in choices)
            self._merged = self._first.model_copy(update={"prompt": first, "choices": kept, "error": None})
        return self._merged


def _same(before: ChoiceProofs, choice: ChoiceProofs) -> bool:
    """An error that stood for the whole event has no prompt."""
    one_prompt = before.prompt is None or choice.prompt is None or before.prompt == choice.prompt
    return one_prompt and before.model_copy(update={"prompt": choice.prompt}) == choice
