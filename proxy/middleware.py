"""ASGI middleware that puts `toploc_proofs` into responses, and touches nothing else.

One context per HTTP request collects what the wrapped `generate` proved; a response that nothing was generated for
passes through byte for byte, message for message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from toploc.protocol import FIELD_NAME, OPTIONS_NAME, ProofError, RequestOptions

from .context import RequestContext, current
from .errors import error_body, send_error
from .log import logger
from .settings import OnError, Settings
from .sse import EventSplitter, add_field, event_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Within JSON text these quotes would be escaped, so generated text cannot look like this.
FINISHED = re.compile(rb'"finish_reason":\s*"')


class ProofMiddleware:
    """Wraps an application whose `generate` is a `ProvingGenerate`.

    `served` is set once the engine is up, before the first request.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_json(scope["headers"]):
            await self.app(scope, receive, send)
            return
        messages = await _read_body(receive)
        body = _parse(b"".join(message.get("body", b"") for message in messages))
        try:
            options = RequestOptions.model_validate(body.get(OPTIONS_NAME, {}))
        except ValidationError as error:
            await send_error(send, 400, *_bad_option(error))
            return
        replayed = _replay(messages, receive)
        enabled = self._settings.proofs if options.enabled is None else options.enabled
        if not enabled:
            await self.app(scope, replayed, send)
            return
        context = RequestContext(scope["app"].state.toploc_served, options, _refusal(body))
        token = current.set(context)
        try:
            await self.app(scope, replayed, _Responder(context, send, self._settings.on_error))
        finally:
            current.reset(token)


class _Responder:
    """The `send` of one request: decides by the response's head what to do with its body."""

    def __init__(self, context: RequestContext, send: Send, on_error: OnError) -> None:
        self._context = context
        self._send = send
        self._on_error = on_error
        self._start: Message | None = None
        self._body: list[bytes] = []
        self._events: EventSplitter | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._start is not None:
            await self._collect(message)
        elif self._events is not None:
            await self._stream(message, self._events)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = dict(message["headers"])
        content_type = headers.get(b"content-type", b"")
        plain = message["status"] < 400 and b"content-encoding" not in headers
        if plain and content_type.startswith(b"text/event-stream"):
            self._events = EventSplitter()
        elif plain and content_type.startswith(b"application/json") and self._context.calls:
            self._start = message
            return
        await self._send(message)

    async def _collect(self, message: Message) -> None:
        """A JSON body: held back to its end, since the field goes there and the length into the head."""
        self._body.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        start, self._start = self._start, None
        assert start is not None
        proofs = self._context.proofs()
        if proofs.error is not None and self._on_error is OnError.FAIL:
            await send_error(self._send, 500, proofs.error.message, None, proofs.error.code)
            return
        body = b"".join(self._body)
        try:
            body = add_field(body, FIELD_NAME, proofs.to_json())
        except ValueError:
            logger.warning("toploc: a JSON response that is not an object carries no proofs")
        await self._send({**start, "headers": _with_length(start["headers"], len(body))})
        await self._send({**message, "body": body})

    async def _stream(self, message: Message, events: EventSplitter) -> None:
        more = message.get("more_body", False)
        parts = [self._extend(event) for event in events.feed(message.get("body", b""))]
        if not more:
            parts.append(events.flush())
        body = b"".join(parts)
        if body or not more:
            await self._send({**message, "body": body})

    def _extend(self, event: bytes) -> bytes:
        """The event with the field, if it ends a choice."""
        if FINISHED.search(event) is None or (document := event_json(event)) is None:
            return event
        index = _finished_choice(orjson.loads(document))
        if index is None:
            return event
        proofs = self._context.proofs(index)
        if proofs.error is not None and self._on_error is OnError.FAIL:
            return event.replace(document, error_body(500, proofs.error.message, None, proofs.error.code))
        return event.replace(document, add_field(document, FIELD_NAME, proofs.to_json()))


def _finished_choice(document: dict[str, Any]) -> int | None:
    for choice in document.get("choices", ()):
        if choice.get("finish_reason") is not None:
            return int(choice["index"])
    return None


def _is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    content_type = next((value for name, value in headers if name == b"content-type"), b"application/json")
    return content_type.split(b";")[0].strip().lower() == b"application/json"


async def _read_body(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replay() -> Message:
        message = next(waiting, None)
        return await receive() if message is None else message

    return replay


def _parse(body: bytes) -> dict[str, Any]:
    """The request as far as it is an object; what is not JSON is vLLM's to refuse."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _bad_option(error: ValidationError) -> tuple[str, str, str]:
    first = error.errors(include_input=False, include_url=False)[0]
    param = ".".join([OPTIONS_NAME, *(str(part) for part in first["loc"])])
    return (
        f"{param}: {first['msg']}; known options are {', '.join(RequestOptions.model_fields)}",
        param,
        "invalid_value",
    )


def _refusal(body: dict[str, Any]) -> ProofError | None:
    if body.get("use_beam_search"):
        return ProofError(
            code="beam_search",
            message="beam search picks tokens over several generations and cannot be proven",
        )
    if body.get("echo") and body.get("max_tokens") == 0:
        return ProofError(code="no_output", message="nothing is generated when max_tokens is 0")
    return None


def _with_length(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    # Digests of the body would be wrong now.
    dropped = (b"content-length", b"etag", b"content-md5", b"digest")
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    return [*kept, (b"content-length", str(length).encode())]
