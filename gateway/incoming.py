"""An application's request, read as far as the gateway has to know it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from toploc_client.routes import sent_to

from toploc.foreign import printable

from .errors import Refusal
from .headers import UPSTREAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from toploc_client.routes import Sent

    from .config import Limits
    from .headers import Raw

UNSAFE: Final = re.compile(r"^[^/]|(?:^|/)\.{1,2}(?:/|$)|//|[\\\x00-\x1f\x7f;#?%]")
"""In a path: what two servers may read as two paths, so that an answer would go by unchecked."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """`target` is path and query as they came. `body` is None where it goes through as it comes, by `stream`. `sent` is
    None on routes that never bring an answer."""

    method: str
    target: str
    path: str
    headers: tuple[Raw, ...]
    body: bytes | None
    stream: AsyncIterator[bytes]
    sent: Sent | None
    model: str | None
    named: str | None
    """The upstream that the application wants."""

    def parsed(self) -> dict[str, Any]:
        return parsed(self.body)


async def read(request: Request, limits: Limits, seconds: float) -> Incoming:
    """Raises Refusal."""
    scope = request.scope
    raw = scope.get("raw_path", scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    path = unquote(raw, errors="replace")
    if UNSAFE.search(path):
        raise Refusal(400, "unsafe_path", "the path has dots, empty parts or signs that servers read differently")
    query = scope["query_string"].decode("latin-1")
    headers = tuple((name.lower(), value) for name, value in scope["headers"])
    sent = sent_to(request.method, path, b"")
    generates = sent is not None and request.method != "GET"
    body = None
    if generates or request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
        body = await whole(request, limits.body_bytes, seconds)
        if generates and request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "content_encoding", "send the body as it is, without content-encoding")
        if sent is not None and sent.kind is not None and (b"\0" in body or not parsed(body)):
            raise Refusal(400, "malformed_body", "the body has to be a JSON object in UTF-8")
    sent = None if sent is None else replace(sent, body=body or b"")
    named = next((value.decode("latin-1") for name, value in headers if name == UPSTREAM), None)
    target = f"{raw}?{query}" if query else raw
    model = parsed(body).get("model")
    model = printable(model)[:200] if isinstance(model, str) and model else None
    return Incoming(request.method, target, path, headers, body, request.stream(), sent, model, named)


def parsed(body: bytes | None) -> dict[str, Any]:
    """Empty for what is no object."""
    try:
        given = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def with_fields(body: bytes, fields: dict[str, Any]) -> bytes:
    """The object with these fields; all other bytes stay as they are, unless one of the fields is there already."""
    held = parsed(body)
    if not held.keys().isdisjoint(fields):
        return json.dumps({**held, **fields}, ensure_ascii=False).encode(errors="surrogatepass")
    end = body.rindex(b"}")
    separator = b", " if held else b""
    return body[:end].rstrip() + separator + json.dumps(fields).encode()[1:-1] + body[end:]


async def whole(request: Request, limit: int, seconds: float) -> bytes:
    """A body. Raises Refusal."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise Refusal(413, "too_large", f"the body is longer than {limit:,} bytes")
    except TimeoutError:
        raise Refusal(408, "slow_body", f"the body did not come in {seconds:g} s") from None
    return bytes(body)
