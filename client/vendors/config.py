"""The YAML of `toploc vendors`, parsed once, at start."""

from __future__ import annotations

import os
import re
from pathlib import Path  # noqa: TC003 (pydantic reads it)
from typing import TYPE_CHECKING, Any, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from toploc.errors import MalformedEvidence, ToplocError
from toploc.evidence.candidates import candidates_in

from ..environment import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Of a vendor: it is a folder's too."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Verifier(_Options):
    """A server of the claimed model's weights."""

    url: str
    api_key: SecretStr | None = None
    timeout: float = Field(default=660, gt=0)

    _url = field_validator("url")(lambda value: _is_url(value))


class Requests(_Options):
    """How many of each kind; `tokens` of an answer at most. `file` has further requests, a body a line."""

    canaries: int = Field(default=32, ge=0, le=10_000)
    sampled: int = Field(default=0, ge=0, le=10_000)
    streamed: int = Field(default=8, ge=0, le=10_000)
    tools: int = Field(default=12, ge=0, le=10_000)
    tokens: int = Field(default=128, ge=1, le=2**20)
    file: Path | None = None


class Price(_Options):
    """Dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Vendor(_Options):
    """`url`: what SDKs call the base URL. `model`: the vendor's name for it. `extra`: fields of every request to it.
    `logprobs`: whether it is asked for log-probabilities, which not all vendors take."""

    name: str = Field(pattern=NAME)
    url: str
    api_key: SecretStr | None = None
    model: str = Field(min_length=1)
    extra: dict[str, Any] = {}
    logprobs: bool = False
    price: Price | None = None

    _url = field_validator("url")(lambda value: _is_url(value))


class Config(_Options):
    """`reference`: the vendor whose tool calls are the measure; without, what most of them do is. `sampling`: options
    that vendors may draw under where requests do not say them."""

    vendors: tuple[Vendor, ...] = Field(min_length=1)
    verifier: Verifier | None = None
    requests: Requests = Requests()
    reference: str | None = None
    sampling: tuple[dict[str, float], ...] | None = None
    at_once: int = Field(default=8, ge=1, le=1000)
    timeout: float = Field(default=300, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [vendor.name for vendor in self.vendors]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"vendors: two are called {twice!r}; give each a name of its own")
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference: {self.reference!r} is none of the vendors")
        try:
            candidates_in(None if self.sampling is None else [*self.sampling])
        except MalformedEvidence as error:
            raise ValueError(str(error)) from None
        return self


def read_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Raises ToplocError, a line for each field that is wrong."""
    try:
        given = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ToplocError(f"{path}: cannot be read: {error}") from None
    if not isinstance(given, dict):
        raise ToplocError(f"{path}: expected names and values, such as `vendors:`")
    try:
        return Config.model_validate(expanded(given, environment))
    except ValidationError as error:
        raise ToplocError("\n".join(f"{path}: {line}" for line in map(_line, error.errors()))) from None
    except ToplocError as error:
        raise ToplocError(f"{path}: {error}") from None


def _is_url(value: str) -> str:
    if not re.match(r"^https?://[^/\s?#@]+(/[^\s?#@]*)?$", value):
        raise ValueError("expected http://… or https://…, without user, query or fragment")
    return value.rstrip("/")


def _line(error: Any) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "no such option; docs/audit.md lists them"
    elif error["type"] == "missing":
        message = "is missing; give it"
    return f"{place}: {message}" if place else message
