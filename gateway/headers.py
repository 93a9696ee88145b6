"""Which headers go through the gateway, and which are of one connection or of its own (RFC 9110, section 7.6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Raw = tuple[bytes, bytes]

OWN: Final = b"toploc-"
"""Begins the names of the gateway's headers. An upstream's are dropped: it could say what was found of it."""

UPSTREAM: Final = b"toploc-upstream"
VERDICT: Final = b"toploc-verdict"
REPORT: Final = b"toploc-report"
TRIED: Final = b"toploc-tried"

HOP_BY_HOP: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"),
        *(b"trailer", b"transfer-encoding", b"upgrade"),
    )
)

NOT_ASKED: Final = frozenset((b"host", b"content-length", b"authorization", b"x-api-key", b"expect", b"forwarded"))
"""Of a request: what the next connection has of its own, keys, and what proxies before wrote of the application."""

NOT_ANSWERED: Final = frozenset((b"date", b"server", b"set-cookie", b"alt-svc"))
"""Of a reply. A cookie would be the gateway's own for whoever gets it, and another address is a way around it."""


def to_upstream(given: Iterable[Raw], key: str | None, *, identity: bool) -> list[Raw]:
    """`identity`: the answer is to be read here, so it must not be compressed."""
    headers = list(_end_to_end(given, NOT_ASKED))
    if identity:
        headers = [(name, value) for name, value in headers if name != b"accept-encoding"]
        headers.append((b"accept-encoding", b"identity"))
    if key is not None:
        headers.append((b"authorization", b"Bearer " + key.encode()))
        if any(name.lower() == b"x-api-key" for name, _ in given):
            headers.append((b"x-api-key", key.encode()))
    return headers


def to_application(given: Iterable[Raw], *, resized: bool) -> list[Raw]:
    """`resized`: the body is another than came, or of another length."""
    return [(name, value) for name, value in _end_to_end(given, NOT_ANSWERED) if not (resized and name == LENGTH)]


LENGTH: Final = b"content-length"


def _end_to_end(given: Iterable[Raw], dropped: frozenset[bytes]) -> Iterable[Raw]:
    lowered = [(name.lower(), value) for name, value in given]
    named = {word.strip().lower() for name, value in lowered if name == b"connection" for word in value.split(b",")}
    for name, value in lowered:
        if not (name in HOP_BY_HOP or name in dropped or name in named or name.startswith((OWN, b"x-forwarded-"))):
            yield name, value
