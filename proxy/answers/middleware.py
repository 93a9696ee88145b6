"""ASGI middleware that puts `toploc_proofs` into responses, and touches nothing else.

One context per HTTP request collects what the wrapped `generate` proved; a response that nothing was generated for
passes through byte for byte, message for message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from pydantic import ValidationError

from toploc.protocol import OPTIONS_NAME, ProofError, RequestOptions

from ..asgi.errors import send_error
from ..asgi.paths import route_path
from ..receipts.signing import Signature
from .context import RequestContext, current
from .responder import Responder, media_type

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ..receipts.signing import Signer
    from ..settings import Settings
    from .context import Served


class Server(Protocol):
    """What answers need of `app.state.toploc` (`server.Server`)."""

    @property
    def served(self) -> Served:
        """What all answers have in common."""

    @property
    def signer(self) -> Signer | None:
        """None if answers are not signed."""


class ProofMiddleware:
    """Wraps an application whose `generate` proves; `app.state.toploc` is there before the first request."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            # Verification has a limit of its own for its body, which may not be read in full before.
            or route_path(scope).startswith("/v1/toploc/")
            or not _is_json(scope["headers"])
        ):
            await self.app(scope, receive, send)
            return
        messages = await _read_body(receive)
        data = b"".join(message.get("body", b"") for message in messages)
        body = _parse(data)
        try:
            given = body.get(OPTIONS_NAME)
            options = RequestOptions.model_validate({} if given is None else given, strict=True)
        except ValidationError as error:
            await send_error(send, 400, *_bad_option(error))
            return
        replayed = _replay(messages, receive)
        enabled = self._settings.proofs if options.enabled is None else options.enabled
        if not enabled:
            await self.app(scope, replayed, send)
            return
        server: Server = scope["app"].state.toploc
        context = RequestContext(server.served, options, _refusal(body))
        signer = server.signer
        signature = None if signer is None else Signature(signer, data, lambda: context.request_id)
        token = current.set(context)
        try:
            await self.app(scope, replayed, Responder(context, send, self._settings.on_error, signature))
        finally:
            current.reset(token)


def _is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    content_type = next((value for name, value in headers if name == b"content-type"), b"application/json")
    return media_type(content_type) == b"application/json"


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
        # vLLM reads with `json`, which takes more: NaN, lone surrogates, UTF-16.
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _bad_option(error: ValidationError) -> tuple[str, str, str]:
    """Message, parameter and code; none of them repeats what the client sent."""
    first = error.errors(include_input=False, include_url=False)[0]
    unknown = first["type"] == "extra_forbidden"
    param = ".".join([OPTIONS_NAME, *(() if unknown else map(str, first["loc"]))])
    problem = "Unknown option" if unknown else first["msg"]
    return f"{param}: {problem}; known options are {', '.join(RequestOptions.model_fields)}", param, "invalid_value"


def _refusal(body: dict[str, Any]) -> ProofError | None:
    if body.get("use_beam_search"):
        return ProofError(
            code="beam_search",
            message="beam search picks tokens over several generations and cannot be proven",
        )
    if body.get("echo") and body.get("max_tokens") == 0:
        return ProofError(code="no_output", message="nothing is generated when max_tokens is 0")
    return None
