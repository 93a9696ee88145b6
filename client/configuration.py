"""A YAML file of options, parsed once, at start.

`${NAME}` stands for what the environment says, so that no file holds a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from toploc.errors import MalformedEvidence, ToplocError
from toploc.evidence.candidates import candidates_in

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Of somebody who is asked: it stands in headers, metrics and paths, and is a folder's."""

VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Section(BaseModel):
    """Of a file: names that it does not know are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def read_section(
    path: str | os.PathLike[str], kind: type[S], environment: Mapping[str, str], *, example: str, document: str
) -> S:
    """`example`: one of its names; `document`: where all are listed. Raises ToplocError, a line for each field that is
    wrong."""
    try:
        given = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ToplocError(f"{path}: cannot be read: {error}") from None
    if not isinstance(given, dict):
        raise ToplocError(f"{path}: expected names and values, such as `{example}:`")
    try:
        return kind.model_validate(expanded(given, environment))
    except ValidationError as error:
        lines = (f"{path}: {_line(one, document)}" for one in error.errors())
        raise ToplocError("\n".join(lines)) from None
    except ToplocError as error:
        raise ToplocError(f"{path}: {error}") from None


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


def is_url(value: str) -> str:
    """The value, without a slash at its end. Raises ValueError for what is no base URL."""
    if not re.match(r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$", value):
        raise ValueError("expected http://… or https://…, without user, query or fragment")
    return value.rstrip("/")


def require_distinct(names: Sequence[str], place: str) -> None:
    """Raises ValueError where two have one name."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{place}: two are called {twice!r}; give each a name of its own")


def require_candidates(sampling: Sequence[Mapping[str, float]] | None) -> None:
    """Raises ValueError for options that an answer without proofs cannot have been drawn under."""
    try:
        candidates_in(None if sampling is None else [*sampling])
    except MalformedEvidence as error:
        raise ValueError(str(error)) from None


def _line(error: Any, document: str) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"no such option; {document} lists them"
    elif error["type"] == "missing":
        message = "is missing; give it"
    return f"{place}: {message}" if place else message
