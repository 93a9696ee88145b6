"""ASGI middleware that puts `toploc_proofs` into responses, and touches nothing else.

One context per HTTP request collects what the wrapped `generate` proved; a response that nothing was generated for
passes through byte for byte, message for message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
from pydantic import ValidationError

from toploc.protocol import OPTIONS_NAME, ProofError, RequestOptions

from ..asgi.errors import send_error
from ..asgi.paths import route_path
from ..receipts.signing import Signature
from .context import RequestContext, current
from .later import Answer
from .responder import Responder, media_type

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ..receipts.signing import Signer
    from ..settings import Settings
    from ..stores.proofs import ProofStore
    from .context import Served
    from .later import Later

RESPONSES: Final = "/v1/responses"
"""The route whose answers vLLM may keep, to be fetched by id; alone it has such."""

PUT: Final = frozenset(("/generate",))
"""Routes that generate by this method too."""

DEFAULT: Final = RequestOptions()
"""Of a request that says nothing of proofs."""

UNPROVEN: Final = frozenset(("/generative_scoring", "/v1/decisions", "/v1/systemone"))
"""Routes that generate tokens, a choice a label, and show log-probabilities alone: nobody could hold proofs against
anything."""


class Server(Protocol):
    """What answers need of `app.state.toploc` (`server.Server`)."""

    @property
    def served(self) -> Served:
        """What all answers have in common."""

    @property
    def signer(self) -> Signer | None:
        """None if answers are not signed."""

    @property
    def later(self) -> Later | None:
        """None if the engine keeps no responses."""

    @property
    def proofs(self) -> ProofStore:
        """By a response's id."""


class ProofMiddleware:
    """Wraps an application whose `generate` proves; `app.state.toploc` is there before the first request."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # No coroutine of ours that is resumed for every token of a stream, but the one that needs to be.
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        path, method = route_path(scope), scope["method"]
        if method == "GET" and path.startswith(f"{RESPONSES}/"):
            return self._fetch(scope, receive, send)
        if (
            (method == "POST" or (method == "PUT" and path in PUT))
            # Verification has a limit of its own for its body, which may not be read in full before.
            and not path.startswith("/v1/toploc/")
            and path not in UNPROVEN
            and _is_json(scope["headers"])
        ):
            return self._prove(scope, receive, send)
        return self.app(scope, receive, send)

    async def _fetch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer that was given before, or is being made."""
        server: Server = scope["app"].state.toploc
        found = None if server.later is None else server.later.get(route_path(scope).removeprefix(f"{RESPONSES}/"))
        if found is None:
            await self.app(scope, receive, send)
            return
        if isinstance(found, ProofError):
            found = Answer(RequestContext(server.served, RequestOptions(), settled=True, lost=found), None)
        on_error = self._settings.on_error
        responder = Responder(found.context, send, on_error, found.signature, store=server.proofs)
        try:
            await self.app(scope, receive, responder)
        finally:
            responder.close()

    async def _prove(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = await _read_body(receive)
        data = b"".join(message.get("body", b"") for message in messages)
        body = _parse(data)
        try:
            given = body.get(OPTIONS_NAME)
            options = DEFAULT if given is None else RequestOptions.model_validate(given, strict=True)
        except ValidationError as error:
            await send_error(send, 400, *_bad_option(error))
            return
        replayed = _replay(messages, receive)
        enabled = self._settings.proofs if options.enabled is None else options.enabled
        server: Server = scope["app"].state.toploc
        later = server.later if route_path(scope) == RESPONSES and body.get("store") is not False else None
        if not enabled:
            if later is not None:
                later.forget(str(body.get("request_id")))
            await self.app(scope, replayed, send)
            return
        asked = body.get("model")
        context = RequestContext(
            server.served, options, _refusal(body), asked=asked if isinstance(asked, str) else None
        )
        signer = server.signer
        signature = None if signer is None else Signature(signer, data, lambda: context.request_id)
        responder = Responder(context, send, self._settings.on_error, signature, later=later, store=server.proofs)
        token = current.set(context)
        try:
            await self.app(scope, replayed, responder)
        finally:
            current.reset(token)
            responder.close()


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
