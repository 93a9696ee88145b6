"""Which requests have a model speak, and how many choices they ask for.

A path that is in neither table is taken for one that fetches an answer, so that a route of tomorrow is not passed over.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from toploc.protocol import FIELD_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

Kind = Literal["chat", "completion", "response", "message", "generate"]
"""Of a generating route: the form of its answers and of its streams' events."""

GENERATING: Final[dict[str, Kind]] = {
    "/chat/completions/batch": "chat",
    "/chat/completions": "chat",
    "/completions": "completion",
    "/responses": "response",
    "/messages": "message",
    "/inference/v1/generate": "generate",
}
"""How paths of POST end. The first that fits counts."""

SILENT: Final = frozenset(
    (
        *("audio", "batches", "classify", "containers", "conversations", "detokenize", "embeddings", "evals", "files"),
        *("fine_tuning", "health", "images", "input_items", "load", "metrics", "models", "moderations", "ping"),
        *("pooling", "realtime", "rerank", "score", "tokenize", "toploc", "uploads", "vector_stores", "version"),
        *("videos", "webhooks"),
    )
)
"""Words in paths of routes on which no model of text answers. What a batch's file says is left to `toploc verify`."""

ANSWER: Final = frozenset(("choices", "output", "content", "message", "delta", FIELD_NAME))
"""Names of which what a model said has one."""

FETCHED: Final = re.compile(r"/responses/([^/]+)$")
"""The end of a path that fetches a response, which may be a stream of its events."""

EXTENSION: Final = "toploc_sent"
"""Where a request has what was sent at first: a redirect copies this, whatever it does to the rest."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the application asked, before any redirect. `kind` is None where an answer is fetched, not generated."""

    kind: Kind | None
    body: bytes
    path: str
    at: float = field(default_factory=time.time)

    @property
    def fetches(self) -> str | None:
        """The id of the response of /v1/responses that is fetched."""
        found = FETCHED.search(self.path) if self.kind is None else None
        return None if found is None else found[1]

    @property
    def form(self) -> Kind | None:
        """Of the events of a stream."""
        return self.kind if self.fetches is None else "response"

    @property
    def choices(self) -> int | None:
        """How many were asked for; None if that cannot be told."""
        return None if self.kind in (None, "response", "message") else _choices(self.body)

    def parsed(self) -> dict[str, Any]:
        """The request's body; empty if it is no object."""
        try:
            body = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}


def kind_of(method: str, path: str) -> Kind | None:
    """Of the answers that a route generates; None if it generates none."""
    if method != "POST":
        return None
    return next((kind for end, kind in GENERATING.items() if path.rstrip("/").endswith(end)), None)


def sent_to(method: str, path: str, body: bytes) -> Sent | None:
    """None if the route never brings an answer."""
    path = path.rstrip("/")
    kind = kind_of(method, path)
    if kind is None and (method == "DELETE" or not SILENT.isdisjoint(path.split("/"))):
        return None
    return Sent(kind, body, path)


def sent_with(request: httpx.Request) -> Sent | None:
    """Of a request of httpx or httpx2; None if its route never brings an answer."""
    try:
        body = request.content
    except Exception:  # a body that is streamed: httpx and httpx2 each have an error for that
        body = b""
    return sent_to(request.method, request.url.path, body)


def sent_of(response: httpx.Response) -> Sent | None:
    """What was asked first of all that led to this reply."""
    first = response.history[0].request if response.history else response.request
    sent = response.request.extensions.get(EXTENSION) or first.extensions.get(EXTENSION)
    return sent if isinstance(sent, Sent) else sent_with(first)


def is_answer(response: Mapping[str, Any]) -> bool:
    """Whether what was fetched may be what a model said; or a list of such."""
    listed = response.get("data")
    return not ANSWER.isdisjoint(response) or (
        isinstance(listed, list) and any(isinstance(part, dict) and is_answer(part) for part in listed)
    )


def _choices(body: bytes) -> int | None:
    try:
        request = json.loads(body)
        of_tokens = isinstance(request.get("token_ids"), list)
        many = (request["sampling_params"] if of_tokens else request).get("n")
        count = 1 if many is None else int(many)
        messages, prompt = request.get("messages"), request.get("token_ids" if of_tokens else "prompt")
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError):
        return None
    if isinstance(messages, list):
        return count * len(messages) if messages and isinstance(messages[0], list) else count
    if isinstance(prompt, str):
        return count
    if isinstance(prompt, list) and prompt:
        return count if isinstance(prompt[0], int) else count * len(prompt)
    return None
