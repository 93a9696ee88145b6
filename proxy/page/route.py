"""What the page reads, below `/v1`, which is what engines guard by keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from toploc.page.live import HEADERS, MEDIA_TYPE, Live, TooManyBrowsers
from toploc.page.table import Tables, UnreadableTable

from ..asgi.errors import error_body
from ..verify.route import description, read_body, refusal

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..server import Server
    from ..verify.recent import Total
    from ..verify.verifier import EngineVerifier

LISTED: Final = 50
"""Of the newest verifications."""

LIFETIME: Final = 10.0
"""Seconds of a stream. An engine's server waits for it when it stops, and tells nobody that it does."""

TABLES: Final = Tables()

NO_STORE: Final = {"cache-control": "no-store"}

router = APIRouter(prefix="/v1/toploc/page", include_in_schema=False)


@router.get("/events")
async def events(request: Request) -> Response:
    verifier = _verifier(request)
    if verifier is None:
        return _error(404, "this server has no page", "no_page")
    app = request.app
    if not hasattr(app.state, "toploc_live"):
        app.state.toploc_live = Live(lambda: _look(app), lifetime=LIFETIME, stopping=lambda: _stops(app))
    live: Live = app.state.toploc_live
    try:
        return StreamingResponse(live.stream(), headers=HEADERS, media_type=MEDIA_TYPE)
    except TooManyBrowsers as error:
        return _error(429, str(error), "too_many_pages")


@router.get("/verifications/{name}")
async def verification(name: str, request: Request) -> Response:
    """Its text to the key that asked for it, and figures alone to others."""
    verifier = _verifier(request)
    found = verifier.recent.get(name, request.headers.get("authorization", "")) if verifier is not None else None
    if found is None:
        return _error(404, "this verification is not remembered here", "verification_unknown")
    return Response(found, headers=NO_STORE, media_type="application/json")


@router.post("/rows")
async def rows(request: Request) -> Response:
    """The lines of a Parquet table, each evidence."""
    verifier = _verifier(request)
    if verifier is None:
        return _error(404, "this server has no page", "no_page")
    try:
        with verifier.places.request() as hold:
            table = await read_body(request, verifier.places.body_bytes, hold)
            return Response(await TABLES.lines(table), headers=NO_STORE, media_type="application/x-ndjson")
    except UnreadableTable as error:
        missing = error.missing
        return _error(501 if missing else 400, str(error), "no_pyarrow" if missing else "unreadable_table")
    except Exception as error:
        return refusal(error)


async def _look(app: FastAPI) -> dict[str, Any]:
    server: Server = app.state.toploc
    verifier = server.verifier
    if verifier is None:
        return {}
    recent, thresholds = verifier.recent, verifier.policy.thresholds
    bounds = thresholds.for_rows(32)
    return {
        **description(server),
        "model": server.served.model,
        "page": server.settings.page.value,
        "keyed": server.settings.keyed,
        "engine": str(server.served.engine) if server.served.engine else None,
        "keys": [key.key_id for key in server.signer.keys] if server.signer else [],
        "bounds": {name: getattr(bounds, name) for name in ("mismatches", "mantissa_mean", "mantissa_median")},
        "running": verifier.places.requests,
        "malformed": recent.malformed,
        "totals": [_total(name, total) for name, total in sorted(recent.totals.items())],
        "newest": [one.listed() for one in recent.newest(LISTED)],
    }


def _total(model: str, total: Total) -> dict[str, Any]:
    seconds = {"median": total.quantile(0.5), "high": total.quantile(0.95), "all": total.seconds}
    return {
        "model": model,
        "verdicts": dict(total.verdicts),
        "seconds": seconds,
        "tokens": total.tokens,
        "last": total.last,
    }


def _verifier(request: Request) -> EngineVerifier | None:
    """None where there is no page."""
    server: Server = request.app.state.toploc
    verifier = server.verifier
    return verifier if verifier is not None and verifier.recent.shown else None


def _stops(app: FastAPI) -> bool:
    """Of vLLM, which has its uvicorn there (vllm/entrypoints/launchers/launcher.py of 0.32.0)."""
    return bool(getattr(getattr(app.state, "server", None), "should_exit", False))


def _error(status: int, message: str, code: str) -> Response:
    return Response(error_body(status, message, None, code), status, media_type="application/json")
