"""The YAML of `toploc vendors`, parsed once, at start."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 (pydantic reads it)
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from ..configuration import NAME, Section, is_url, read_section, require_candidates, require_distinct

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verifier(Section):
    """A server of the claimed model's weights."""

    url: str
    api_key: SecretStr | None = None
    timeout: float = Field(default=660, gt=0)

    _url = field_validator("url")(is_url)


class Requests(Section):
    """How many of each kind; `tokens` of an answer at most. `file` has further requests, a body a line."""

    canaries: int = Field(default=32, ge=0, le=10_000)
    sampled: int = Field(default=0, ge=0, le=10_000)
    streamed: int = Field(default=8, ge=0, le=10_000)
    tools: int = Field(default=12, ge=0, le=10_000)
    tokens: int = Field(default=128, ge=1, le=2**20)
    file: Path | None = None


class Price(Section):
    """Dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Vendor(Section):
    """`url`: what SDKs call the base URL. `model`: the vendor's name for it. `extra`: fields of every request to it.
    `logprobs`: whether it is asked for log-probabilities, which not all vendors take."""

    name: str = Field(pattern=NAME)
    url: str
    api_key: SecretStr | None = None
    model: str = Field(min_length=1)
    extra: dict[str, Any] = Field(default_factory=dict)
    logprobs: bool = False
    price: Price | None = None

    _url = field_validator("url")(is_url)


class Config(Section):
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
        require_distinct(names, "vendors")
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference: {self.reference!r} is none of the vendors")
        require_candidates(self.sampling)
        return self


def read_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Raises ToplocError, a line for each field that is wrong."""
    return read_section(path, Config, environment, example="vendors", document="docs/audit.md")
