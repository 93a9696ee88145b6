"""A verifier that is a server: evidence goes to its `POST /v1/toploc/verify`, and its report comes back."""

from __future__ import annotations

import json
from typing import Final

import httpx
from pydantic import ValidationError

from .errors import ToplocError
from .report import Report, malformed

PATH: Final = "/v1/toploc/verify"
TIMEOUT: Final = 660.0
"""Seconds; the server itself gives up after 600."""


class ServerVerifier:
    """Asks the server at `url`, with or without `/v1` at its end; `api_key` is its `--api-key`.

    The report is that server's word: whoever runs it is trusted.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1") + PATH
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def verify(self, data: bytes | str) -> Report:
        """The report on a JSON object of evidence. Raises ToplocError where the server gives none."""
        try:
            response = httpx.post(self._url, content=data, headers=self._headers, timeout=TIMEOUT)
            if response.status_code == 400:
                return malformed("malformed", str(response.json()["error"]["message"]))
            if response.is_success:
                return Report.model_validate_json(response.content)
        except httpx.HTTPError as error:
            raise ToplocError(f"{self._url}: {error or type(error).__name__}") from None
        except (ValidationError, json.JSONDecodeError, LookupError, TypeError):
            raise ToplocError(f"{self._url}: the reply is no report") from None
        raise ToplocError(f"{self._url}: HTTP {response.status_code}: {response.text[:200]}")
