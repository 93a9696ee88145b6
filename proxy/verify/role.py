"""ASGI middleware of a server that only verifies: what would generate is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..asgi.errors import send_error
from ..asgi.paths import route_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN: Final = ("/v1/toploc", "/tokenize", "/detokenize")
"""What may be posted to. Named one by one, since any other route, of a later vLLM too, may generate."""


class VerifierOnly:
    """Lets requests for information pass, and of others those to `OPEN`; the rest is a 404."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        generates = scope["type"] == "websocket" or (
            scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS")
        )
        if not generates or any(path == allowed or path.startswith(f"{allowed}/") for allowed in OPEN):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            message = f"{path[:100]}: this server only verifies (--toploc-role verifier)"
            await send_error(send, 404, message, None, "verifier_only")
