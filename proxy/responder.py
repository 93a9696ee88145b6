"""The `send` of one HTTP request: adds `toploc_proofs` to a JSON body or to the events that end a choice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from toploc.protocol import FIELD_NAME

from .errors import error_body, send_error
from .log import logger
from .settings import OnError
from .sse import EventSplitter, add_field, add_field_within, event_json

if TYPE_CHECKING:
    from starlette.types import Message, Send

    from .context import RequestContext

# What the events that end a choice contain, and few others: chat and completions; /v1/messages; /v1/responses.
# Inside a JSON string the quotes would be escaped, so generated text cannot look like this.
MAY_END_CHOICE = re.compile(rb'"(?:finish_reason|stop_reason)":\s*"|"type":\s*"response\.(?:completed|incomplete)"')

# Wrong once the body has changed.
BODY_HEADERS = (b"content-length", b"etag", b"content-md5", b"digest", b"content-digest", b"repr-digest")


class Responder:
    """Decides by a response's head what to do with its body; what is not ours passes as it came."""

    def __init__(self, context: RequestContext, send: Send, on_error: OnError) -> None:
        self._context = context
        self._send = send
        self._on_error = on_error
        self._head: Message | None = None
        self._body: list[bytes] = []
        self._events: EventSplitter | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body" and self._head is not None:
            await self._collect(message, self._head)
        elif message["type"] == "http.response.body" and self._events is not None:
            await self._stream(message, self._events)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = dict(message["headers"])
        content_type = headers.get(b"content-type", b"")
        readable = message["status"] < 400 and b"content-encoding" not in headers
        if readable and content_type.startswith(b"application/json") and self._context.calls:
            # Held back until the body's new length is known.
            self._head = message
            return
        if readable and content_type.startswith(b"text/event-stream"):
            self._events = EventSplitter()
        await self._send(message)

    async def _collect(self, message: Message, head: Message) -> None:
        self._body.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        self._head = None
        proofs = self._context.proofs()
        if proofs.error is not None and self._on_error is OnError.FAIL:
            await send_error(self._send, 500, proofs.error.message, None, proofs.error.code)
            return
        body = b"".join(self._body)
        try:
            body = add_field(body, FIELD_NAME, proofs.to_json())
        except ValueError:
            logger.warning("toploc: a JSON response that is not an object cannot carry proofs")
        headers = [(name, value) for name, value in head["headers"] if name.lower() not in BODY_HEADERS]
        await self._send({**head, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({**message, "body": body})

    async def _stream(self, message: Message, events: EventSplitter) -> None:
        more = message.get("more_body", False)
        body = b"".join(self._extend(event) for event in events.feed(message.get("body", b"")))
        if not more:
            body += events.flush()
        if body or not more:
            await self._send({**message, "body": body})

    def _extend(self, event: bytes) -> bytes:
        """The event, with the field if it ends a choice."""
        if MAY_END_CHOICE.search(event) is None or (document := event_json(event)) is None:
            return event
        within = None
        match orjson.loads(document):
            case {"choices": [{"index": int(index), "finish_reason": str()}]}:
                proofs = self._context.proofs(index)
            case {"type": "message_delta", "delta": {"stop_reason": str()}}:
                proofs = self._context.proofs()
            case {"type": "response.completed" | "response.incomplete", "response": dict()}:
                proofs, within = self._context.proofs(), "response"
            case _:
                return event
        if proofs.error is not None and self._on_error is OnError.FAIL:
            return event.replace(document, error_body(500, proofs.error.message, None, proofs.error.code))
        extended = (
            add_field(document, FIELD_NAME, proofs.to_json())
            if within is None
            else add_field_within(document, within, FIELD_NAME, proofs.to_json())
        )
        return event.replace(document, extended)
