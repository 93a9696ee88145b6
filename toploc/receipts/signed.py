"""The leaves of a response that a receipt covers, and their digest.

Needs no torch. `docs/receipts.md` defines the digest, `toploc/leaves.py` what a leaf is and which are free: the same
leaves that a verifier rehearses.
"""

from __future__ import annotations

from hashlib import sha256
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from ..leaves import is_free_at, spelled_name
from ..protocol import FIELD_NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

UNSAYABLE: Final = (ValueError, RecursionError)
"""What is raised of leaves that have no canonical form: as `request.digest`."""


def leaves_sha256(response: Mapping[str, Any], choice: int, fields: Collection[str] | None = None) -> str | None:
    """SHA-256 of the leaves of a response that are not free, but those of its other choices, in hexadecimal.

    `fields`: which of the response's fields, None for all. None where a leaf has no canonical form (RFC 8785), such as
    an integer beyond 2^53 - 1 or half a surrogate pair.
    """
    lines: list[str] = []
    try:
        for name, value in _fields(response, choice):
            if fields is None or name in fields:
                _add(lines, value, _written(name), spelled_name(name).removeprefix("."))
        return sha256(f"[{','.join(sorted(lines))}]".encode()).hexdigest()
    except UNSAYABLE:
        return None


def fields_in(response: Mapping[str, Any], choice: int) -> list[str]:
    """The fields of a response that have leaves which are not free, in order of their names."""
    found = []
    for name, value in _fields(response, choice):
        lines: list[str] = []
        _add(lines, value, "", spelled_name(name).removeprefix("."))
        found += [name] if lines else []
    return sorted(found)


def _fields(response: Mapping[str, Any], choice: int) -> Iterator[tuple[str, Any]]:
    """What a response says beside its proofs. Of choices that one, which says its number itself."""
    for name, value in response.items():
        if name == "choices" and isinstance(value, list):
            yield name, [one for one in value if isinstance(one, dict) and one.get("index") == choice]
        elif name != FIELD_NAME:
            yield name, value


def _add(lines: list[str], value: Any, path: str, pattern: str) -> None:
    """A line for each leaf that is not free. A place in a list that has none stands as null, since a list has a length.

    `path`: in canonical form, without brackets; `pattern`: see `pattern_of`.
    """
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _add(lines, item, f"{path},{_written(name)}", pattern + spelled_name(name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            count = len(lines)
            _add(lines, item, f"{path},{place}", f"{pattern}[]")
            if len(lines) == count:
                lines.append(f"[[{path},{place}],null]")
    elif value is not None and not is_free_at(pattern, value):
        lines.append(f"[[{path}],{_written(value)}]")


def _written(value: object) -> str:
    """In canonical form. Texts and common numbers are written here: of an answer with log-probabilities, in thousands,
    the package for it takes four times as long."""
    if isinstance(value, str):
        return encode_basestring(value)
    if type(value) is int and abs(value) < 2**53:
        return str(value)
    if type(value) is float and 1e-4 <= abs(value) < 2**53:  # within, Python and JavaScript write alike
        return repr(value).removesuffix(".0")
    return rfc8785.dumps(value).decode()  # type: ignore[arg-type]
