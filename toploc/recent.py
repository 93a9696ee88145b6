"""The newest values under their names, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

V = TypeVar("V")


class Recent(Generic[V]):
    """Above a bound the oldest go.

    Args:
        count: of values; None for any number.
        size: of all of them together, each by `measure`; None for any.
        remembered: names of which it is known that their values went.
    """

    def __init__(
        self,
        *,
        count: int | None = None,
        size: int | None = None,
        measure: Callable[[V], int] = lambda _: 0,
        remembered: int = 0,
    ) -> None:
        self._count, self._most, self._remembered = count, size, remembered
        self._measure = measure
        self._size = 0
        self._there: OrderedDict[str, V] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()

    def put(self, name: str, value: V) -> None:
        """As the newest, in place of another under its name."""
        self.forget(name)
        self._there[name] = value
        self._size += self._measure(value)
        while self._is_full():
            oldest, old = self._there.popitem(last=False)
            self._size -= self._measure(old)
            self._gone[oldest] = None
            if len(self._gone) > self._remembered:
                self._gone.popitem(last=False)

    def get(self, name: str) -> V | None:
        return self._there.get(name)

    def newest(self, count: int) -> list[V]:
        """The newest first."""
        return [self._there[name] for name in islice(reversed(self._there), count)]

    def has_gone(self, name: str) -> bool:
        """Whether its value went for newer ones."""
        return name in self._gone

    def forget(self, name: str) -> None:
        """As if it had never been there."""
        self._gone.pop(name, None)
        if name in self._there:
            self._size -= self._measure(self._there.pop(name))

    def _is_full(self) -> bool:
        return (self._count is not None and len(self._there) > self._count) or (
            self._most is not None and self._size > self._most
        )
