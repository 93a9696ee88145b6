"""Texts of a configuration with `${NAME}` replaced by what the environment says, so that no file holds a secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expanded(value: Any, environment: Mapping[str, str], place: str = "") -> Any:
    """Of what a YAML parser gave. Raises ToplocError, naming the place, for a name that the environment does not
    have."""
    if isinstance(value, dict):
        return {name: expanded(part, environment, f"{place}.{name}".lstrip(".")) for name, part in value.items()}
    if isinstance(value, list):
        return [expanded(part, environment, f"{place}[{number}]") for number, part in enumerate(value)]
    if not isinstance(value, str):
        return value

    def known(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise ToplocError(f"{place}: the environment has no {found[1]}; set it, or write the value here")
        return environment[found[1]]

    return VARIABLE.sub(known, value)
