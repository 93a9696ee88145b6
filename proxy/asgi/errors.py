"""Error responses in OpenAI's format, as vLLM sends them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from starlette.types import Send


def error_body(status: int, message: str, param: str | None, code: str | int) -> bytes:
    """The JSON object `{"error": {message, type, param, code}}`."""
    kind = HTTPStatus(status).phrase.replace(" ", "") + ("Error" if status < 500 else "")
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


async def send_error(send: Send, status: int, message: str, param: str | None, code: str | int) -> None:
    """Sends a whole response."""
    body = error_body(status, message, param, code)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
