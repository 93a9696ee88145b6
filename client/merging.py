"""Values of events, merged as the SDK's own accumulation merges them, in time linear in what is added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ONCE: Final = ("role", "type")
"""Texts of a delta that are repeated, not continued."""


class Disagreement(Exception):
    """Two events say other things of what is said once. Never leaves the assembler."""


class _Text:
    """Parts of a text, joined once."""

    def __init__(self, first: str) -> None:
        self.parts = [first]


class _Listed:
    """Objects by their `index`."""

    def __init__(self) -> None:
        self.entries: dict[int, dict[str, Any]] = {}


class Merged:
    """An object that grows. Nulls say nothing; what is said again has to be the same, except where `texts` says that a
    text goes on, and for lists and objects if `grows`."""

    def __init__(self, *, grows: bool = True) -> None:
        self._grows = grows
        self._held: dict[str, Any] = {}

    def add(self, new: Mapping[str, Any], texts: Collection[str] = ()) -> None:
        """Raises Disagreement."""
        for name, value in new.items():
            if value is None:
                continue
            held = self._held.get(name)
            if name in texts and isinstance(value, str):
                if isinstance(held, _Text):
                    held.parts.append(value)
                else:
                    self._held[name] = _Text(value)
            elif held is None:
                self._held[name] = _started(value) if self._grows else value
            elif self._grows and isinstance(held, list | dict | _Listed):
                self._held[name] = _continued(name, held, value)
            elif type(held) is not type(value) or held != value:
                raise Disagreement(f"{quote(name)} is {quote(str(_plain(held)))}, then {quote(str(value))}")

    def into(self, name: str, delta: Mapping[str, Any]) -> None:
        """A delta, whose texts go on."""
        _extend(self._held.setdefault(name, {}), delta)

    def replace(self, name: str, value: object) -> None:
        self._held[name] = value

    def value(self) -> dict[str, Any]:
        return {name: _plain(held) for name, held in self._held.items()}


def _extend(held: dict[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        if value is None:
            continue
        known = held.get(name)
        if known is None:
            held[name] = _Text(value) if isinstance(value, str) and name not in ONCE else _started(value)
        else:
            held[name] = _continued(name, known, value)


def _started(value: object) -> Any:
    if isinstance(value, list):
        return _continued("", [], value)
    if isinstance(value, dict):
        held: dict[str, Any] = {}
        _extend(held, value)
        return held
    return value


def _continued(name: str, held: Any, value: Any) -> Any:
    """What is held, and in it the value. Raises Disagreement."""
    if isinstance(held, _Text) and isinstance(value, str):
        held.parts.append(value)
    elif isinstance(held, dict) and isinstance(value, dict):
        _extend(held, value)
    elif isinstance(held, list) and isinstance(value, list):
        if not held and value and all(isinstance(e, dict) and type(e.get("index")) is int for e in value):
            return _continued(name, _Listed(), value)
        held.extend(value)
    elif isinstance(held, _Listed) and isinstance(value, list):
        for entry in value:
            _extend(held.entries.setdefault(entry["index"], {}), entry)
    elif type(held) is not type(value) or held != value:
        raise Disagreement(f"{quote(name)} is {quote(str(_plain(held)))}, then {quote(str(value))}")
    return held


def _plain(held: Any) -> Any:
    if isinstance(held, _Text):
        return "".join(held.parts)
    if isinstance(held, _Listed):
        return [_plain(held.entries[index]) for index in sorted(held.entries)]
    if isinstance(held, dict):
        return {name: _plain(value) for name, value in held.items()}
    return held
