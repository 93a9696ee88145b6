"""Answers held against what was expected."""

from __future__ import annotations

import json
from typing import Any, Final

MAX_SHOWN: Final = 120
"""Characters of a value in a table. Stops a program's answer from filling the screen."""


def problem_of(line: bytes, case_id: str, expected: dict[str, Any]) -> str | None:
    """What is wrong with a line that answers a case, or None."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return f"no JSON: {shown(line.decode(errors='replace'))}"
    if not isinstance(said, dict) or said.keys() != {"id", "output"}:
        return f"expected an object of `id` and `output`, got {shown(said)}"
    if said["id"] != case_id:
        return f"an answer to {shown(said['id'])}"
    return difference(expected, said["output"], "output")


def difference(expected: Any, got: Any, path: str) -> str | None:
    """The first place where two JSON values differ. Numbers are compared as doubles."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if missing := sorted(expected.keys() - got.keys()):
            return f"{path}.{missing[0]}: missing, expected {shown(expected[missing[0]])}"
        if unknown := sorted(got.keys() - expected.keys()):
            return f"{path}.{unknown[0]}: not expected, got {shown(got[unknown[0]])}"
        return next(filter(None, (difference(expected[name], got[name], f"{path}.{name}") for name in expected)), None)
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        places = (difference(*pair, f"{path}[{i}]") for i, pair in enumerate(zip(expected, got, strict=True)))
        return next(filter(None, places), None)
    return None if _equal(expected, got) else f"{path}: expected {shown(expected)}, got {shown(got)}"


def _equal(expected: Any, got: Any) -> bool:
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return abs(got) < 2**1000 and float(expected) == float(got)
    return bool(expected == got)


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
