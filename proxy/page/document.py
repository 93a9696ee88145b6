"""The page's document, outside of what asks for keys: it has nothing of anybody's, and asks for the key itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toploc.page.document import live_document

from ..asgi.paths import route_path

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

PATH: Final = "/toploc"

NAME: Final = "toploc verifier"


class PageDocument:
    """Answers GET /toploc; all else is the application's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        document = live_document(NAME, __package__ or "", "verifier")
        self._body = document.html
        headers = {
            **document.headers,
            "content-type": "text/html; charset=utf-8",
            "content-length": str(len(self._body)),
        }
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or route_path(scope) != PATH:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body if scope["method"] == "GET" else b""})


def put_before(app: FastAPI) -> None:
    """Around all middleware, of engines that add theirs later too: SGLang's would ask for a key here."""
    build = app.build_middleware_stack

    def with_document() -> ASGIApp:
        return PageDocument(build())

    patched: Any = app
    patched.build_middleware_stack = with_document
