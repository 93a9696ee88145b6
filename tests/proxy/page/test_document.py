"""The page's document in vLLM's own application, and where the operator turned it off."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from states import server
from toploc_proxy.application import attach
from toploc_proxy.settings import Page, Role, Settings


def ask(app: FastAPI, *calls: tuple[str, str], **headers: str) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
            return [await client.request(method, path) for method, path in calls]

    return asyncio.run(run())


def application(page: Page, role: Role = Role.PROVER) -> FastAPI:
    settings = Settings(channel="/nowhere", page=page, role=role)
    app = FastAPI()
    attach(app, settings)

    @app.middleware("http")  # as SGLang adds its own after ours
    async def guard(request: Any, call_next: Any) -> Any:
        allowed = request.headers.get("authorization") == "Bearer right"
        return await call_next(request) if allowed else httpx_401()

    app.state.toploc = server(settings=settings)
    return app


def httpx_401() -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": "Unauthorized"}, 401)


@pytest.mark.parametrize("role", list(Role))
def test_the_document_needs_no_key_and_has_nothing(role: Role) -> None:
    app = application(Page.OWN, role)
    page, head, post, below = ask(
        app, ("GET", "/toploc"), ("HEAD", "/toploc"), ("POST", "/toploc"), ("GET", "/toploc/x")
    )
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(page.content))
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert post.status_code == below.status_code == 401


def test_what_it_reads_needs_one() -> None:
    calls = [("GET", "events"), ("GET", "verifications/x"), ("POST", "verify"), ("POST", "rows")]
    replies = ask(application(Page.OWN), *((method, f"/v1/toploc/page/{path}") for method, path in calls))
    assert {reply.status_code for reply in replies} == {401}


def test_a_server_that_cannot_verify_has_an_empty_one() -> None:
    calls = [("GET", "events"), ("GET", "verifications/x"), ("POST", "verify"), ("POST", "rows")]
    paths = [(method, f"/v1/toploc/page/{path}") for method, path in calls]
    for reply in ask(application(Page.OWN), *paths, authorization="Bearer right"):
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] in ("no_page", "verification_unknown")


def test_no_page_where_the_operator_turned_it_off() -> None:
    calls = [("GET", "/toploc"), ("GET", "/v1/toploc/page/events"), ("POST", "/v1/toploc/page/rows")]
    replies = ask(application(Page.NONE), *calls, authorization="Bearer right")
    assert {reply.status_code for reply in replies} == {404}


def test_it_is_in_no_openapi_document() -> None:
    paths = application(Page.OWN).openapi()["paths"]
    assert not [path for path in paths if "page" in path or path == "/toploc"]
