"""What the gateway raises, and what it answers in place of an answer.

InvalidConfig       the YAML, at start
StoreUnavailable    the store: a full disk, a database that is away
Refusal             one request; it becomes a reply in OpenAI's format
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from toploc.errors import ToplocError

BILLED: Final = 424
"""Failed Dependency: an upstream may have made an answer, and billed it. SDKs repeat 408, 409, 429 and all of 5xx by
themselves, and so would have it made again."""


class InvalidConfig(ToplocError):
    """A configuration that cannot be used; each line names a field, and what it has to be."""


class StoreUnavailable(ToplocError):
    """The store of answers cannot be read or written."""


class Refusal(ToplocError):
    """In place of an answer: an HTTP status, a code for programs, and the field of the request that is wrong."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers: list[tuple[bytes, bytes]] = []

    def response(self, *, anthropic: bool = False) -> Response:
        headers = {"x-should-retry": "false"} if self.status == BILLED else {}
        if self.status in (429, 503):
            headers["retry-after"] = "1"
        body = body_of(self.status, self.code, str(self), self.param, anthropic=anthropic)
        response = Response(body, self.status, headers, "application/json")
        response.raw_headers.extend(self.headers)
        return response


def body_of(status: int, code: str, message: str, param: str | None = None, *, anthropic: bool = False) -> bytes:
    """An error object in OpenAI's format; `anthropic` adds what that SDK tells errors by."""
    kind = HTTPStatus(status).phrase.replace(" ", "") + ("Error" if status < 500 else "")
    error = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return json.dumps({"type": "error", **error} if anthropic else error).encode()
