"""Every way in which one leaf, list or object of a response can be another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
Where = tuple[str | int, ...]


def inner(value: Any, path: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Objects and lists."""
    yield path, value
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from inner(item, (*path, name))


def leaves(value: Any) -> Iterator[tuple[Where, Any]]:
    for path, parent in inner(value):
        for name, item in parent.items() if isinstance(parent, dict) else enumerate(parent):
            if item is not None and not isinstance(item, dict | list):
                yield (*path, name), item


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    # A rank is bound up to the noise of what it ranks.
    return value * 10**6 + 7 if isinstance(value, int) else value + 7 if isinstance(value, float) else f"{value}x"


def changed(text: str, path: Where, how: str) -> Json:
    response: Json = json.loads(text)
    parent: Any = response
    for part in path[:-1]:
        parent = parent[part]
    value = parent[path[-1]] if path else response
    match how:
        case "changed":
            parent[path[-1]] = other(value)
        case "removed":
            del parent[path[-1]]
        case "doubled":
            parent[path[-1]] = [value, value]
        case "given a neighbour":
            value["also"] = "anything"
        case "reversed":
            value.reverse()
        case "repeated":
            value.append(value[0])
    return response


def mutations(response: Json) -> Iterator[tuple[Where, str]]:
    for path, _ in leaves(response):
        yield from ((path, how) for how in ("changed", "removed", "doubled"))
    for path, value in inner(response):
        if isinstance(value, dict):
            yield path, "given a neighbour"
        elif value:
            yield path, "repeated"
            if value != value[::-1]:
                yield path, "reversed"
