"""Who may ask."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from .errors import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from .config import Config


def authorize(config: Config, request: Request) -> None:
    """By `Authorization: Bearer`, or Anthropic's `x-api-key`. Raises Refusal."""
    if not config.api_keys:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
    known = [key.get_secret_value().encode() for key in config.api_keys]
    if not any(hmac.compare_digest(given.encode(errors="replace"), key) for key in known):
        raise Refusal(401, "invalid_api_key", "give one of the gateway's `api_keys`, as Authorization: Bearer KEY")
