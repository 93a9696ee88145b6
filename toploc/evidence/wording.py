"""What a schema found wrong, in words that name the field and what would be right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .strict_json import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

KINDS: Final = {
    "bool": "true or false",
    "bytes": "text",
    "dict": "an object",
    "float": "a number",
    "int": "an integer",
    "list": "a list",
    "model_attributes": "an object",
    "model": "an object",
    "string": "text",
    "tuple": "a list",
}
"""What pydantic's error types of the forms `int_type`, `int_parsing` and `int_from_float` expect."""

LIMITS: Final = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "longer text",
    "too_long": "at most {max_length} items",
    "too_short": "a longer list",
}
"""What other error types expect, by the names that pydantic gives their figures."""


def problem_of(error: ValidationError) -> tuple[str, str]:
    """The path of the first field that is wrong, such as `.choices[1].text`, and what is wrong with it.

    Of a field that may be one thing or another, the path ends at the field, and the first thing is named.
    """
    first = error.errors(include_url=False)[0]
    path = ""
    for part in first["loc"]:
        # Branches of a union are named after types: `str`, `list[str]`, `constrained-int`.
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int", "float", "bool"):
            path += f".{part}"
        else:
            break
    return path, _wording(first["type"], first.get("ctx", {}), first["input"], first["msg"])


def _wording(kind: str, figures: Mapping[str, Any], value: object, message: str) -> str:
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return "unknown field"
    if kind in LIMITS:
        return f"expected {LIMITS[kind].format(**figures)}, got {_short_json(value)}"
    expected = next((KINDS[name] for name in KINDS if kind.startswith(f"{name}_")), None)
    if expected is not None:
        return f"expected {expected}, got {_short_json(value)}"
    return message.removeprefix("Value error, ")


def _short_json(value: object) -> str:
    try:
        return short(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return short(value)
