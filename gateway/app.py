"""The gateway as an ASGI application."""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from . import incoming, pages
from .access import authorize
from .errors import Refusal
from .gateway import Gateway
from .headers import REPORT, TRIED, UPSTREAM, VERDICT
from .log import event, logger
from .page.page import Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from .config import Config

TOLD: Final = (UPSTREAM, VERDICT, REPORT, TRIED)
"""Headers of a reply that its line in the log has too."""


class _Everything:
    """Every route that is not the gateway's own."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003, "reason": "the gateway has no WebSockets"})
            return
        gateway, request, started = self._gateway, Request(scope, receive), time.monotonic()
        anthropic = scope["path"].rstrip("/").endswith("/messages")
        status, headers = 499, dict[str, str]()

        async def noting(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {n.decode(): v.decode() for n, v in message["headers"] if n in TOLD}
            await send(message)

        gateway.running += 1
        gateway.metrics.running.inc()
        try:
            try:
                response = await self._response(request)
            except Refusal as refusal:
                response = refusal.response(anthropic=anthropic)
            await response(scope, receive, noting)
        except ClientDisconnect:
            pass
        finally:
            gateway.running -= 1
            gateway.metrics.running.dec()
            seconds = round(time.monotonic() - started, 4)
            told = {name.removeprefix("toploc-"): value for name, value in headers.items()}
            where = {"method": request.method, "path": scope["path"][:200]}
            event(logging.INFO, "request", **where, status=status, seconds=seconds, **told)

    async def _response(self, request: Request) -> Any:
        gateway = self._gateway
        authorize(gateway.config, request)
        if gateway.running > gateway.config.limits.requests:
            raise Refusal(429, "too_many_requests", "as many requests are in progress as `limits.requests` allows")
        try:
            given = await incoming.read(request, gateway.config.limits, gateway.config.timeouts.body)
            lists = (given.method, given.path.rstrip("/"), given.named) == ("GET", "/v1/models", None)
            if lists and (listed := pages.models(gateway.config)) is not None:
                return JSONResponse(listed)
            return await gateway.relay.answer(given)
        except (Refusal, ClientDisconnect):
            raise
        except Exception:
            logger.exception("a request failed")
            raise Refusal(500, "internal_error", "the gateway failed; its log has more") from None


def application(config: Config) -> Starlette:
    gateway = Gateway(config)
    page = Page(gateway)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        yield
        page.live.close()
        await gateway.stop()

    own = [Route("/toploc", page.document), Mount("/toploc", routes=pages.routes(gateway, page))]
    made = Starlette(routes=[*own, Mount("/", app=_Everything(gateway))], lifespan=lifespan)
    made.state.gateway, made.state.page = gateway, page
    return made
