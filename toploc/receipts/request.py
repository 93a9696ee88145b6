"""The request of a receipt: the bytes of its body, and forms of it that outlive a parser.

Needs no torch. `docs/receipts.md` says which of them decides when.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import rfc8785

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPED: Final = frozenset({"role", "content", "type", "text", "name"})
"""Keys of messages and their parts, which vLLM puts in an order of its own."""

UNREADABLE: Final = (ValueError, TypeError, RecursionError)
"""What JSON readers and writers raise that are given something else."""

SPELLINGS: Final = tuple(
    partial(json.dumps, separators=separators, ensure_ascii=ascii_only)
    for separators in ((",", ":"), (", ", ": "))
    for ascii_only in (False, True)
)
"""How clients write bodies: OpenAI's and Anthropic's SDKs by the first, `requests` and `json.dumps` by the last."""

UNUSUAL: Final = re.compile(
    rb"\d{16}|NaN|Infinity|[eE]\+?\d{3}|\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]|\[{32}"
    rb"|\A[\xef\xfe\xff\x00]|\A.\x00",
    re.DOTALL,
)
"""What a body without a canonical form has, and few others: large numbers, halves of surrogate pairs, depth, UTF-16."""


def digest(value: object) -> str | None:
    """SHA-256 of a JSON value's canonical form (RFC 8785), in hexadecimal.

    None if it has none: numbers that a double cannot hold, integers beyond 2^53 - 1, half a surrogate pair, nesting
    that exhausts the stack.
    """
    try:
        return sha256(rfc8785.dumps(value)).hexdigest()  # type: ignore[arg-type]
    except (ValueError, RecursionError):
        return None


def request_digest(body: bytes) -> str | None:
    """`digest` of a request as it came. Read by Python's own parser, which like vLLM's keeps integers exact and the
    last of equal keys. None also if it is no JSON."""
    try:
        return digest(json.loads(body))
    except UNREADABLE:
        return None


def body_sha256(body: bytes) -> str:
    """SHA-256 of a request's bytes as they went over the wire, in hexadecimal."""
    return sha256(body).hexdigest()


def says(body: bytes, request: object) -> bool:
    """Whether a body is the JSON of a request, as `request_digest` reads it."""
    try:
        return _same(json.loads(body), request)
    except UNREADABLE:
        return False


def spellings_sha256(request: object) -> frozenset[str]:
    """`body_sha256` of a request as clients usually write it, its keys in their order."""
    digests = set()
    for spelling in SPELLINGS:
        with contextlib.suppress(*UNREADABLE):
            digests.add(body_sha256(spelling(request).encode()))
    return frozenset(digests)


def is_bendable(request: Mapping[str, Any]) -> bool:
    """Whether requests of one canonical form may lead to other prompts or other rules for tokens.

    The order of keys and 1.0 in place of 1 are not in the form, and templates and grammars see them: in the parameters
    of a tool, in a schema, in options of the template, in the input of a tool that was used.
    """
    return any(_bends(value) for value in request.values() if isinstance(value, dict | list))


def needs_body(body: bytes) -> bool:
    """Whether evidence has to carry a request's body, since its receipt may not pass without: the request has no
    canonical form; or others have the same, and it is written as hardly any client writes it."""
    try:
        request = json.loads(body)
    except UNREADABLE:
        return False
    if UNUSUAL.search(body) is not None and digest(request) is None:
        return True
    if not isinstance(request, dict) or not is_bendable(request):
        return False
    return all(spelling(request).encode() != body for spelling in SPELLINGS)


def evidence_of(body: bytes, response: bytes) -> bytes:
    """The evidence of a request's body, exactly as it was sent, and of a response in JSON, UTF-8.

    It carries the body as a text too where that is needed; one in another encoding cannot be carried.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return b'{"request": ' + _rewritten(body) + b', "response": ' + response + b"}"
    exact = b', "request_body": ' + json.dumps(text).encode() if needs_body(body) else b""
    return b'{"request": ' + body + b', "response": ' + response + exact + b"}"


def _rewritten(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body)).encode()
    except UNREADABLE:
        return b"null"


def _same(left: Any, right: Any) -> bool:
    """In JSON 1 and 1.0 are one number, and true is none."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _bends(value: Any) -> bool:
    if isinstance(value, dict):
        return (len(value) > 1 and not value.keys() <= TYPED) or any(map(_bends, value.values()))
    if isinstance(value, list):
        return any(map(_bends, value))
    return isinstance(value, float) and value.is_integer()
