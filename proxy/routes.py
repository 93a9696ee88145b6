"""Routes of our own. They sit below `/v1`, which is what vLLM's `--api-key` guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from toploc.protocol import FIELD_NAME
from toploc.scheme import CHUNK_SIZE, SCHEME, TOPK, VERSION
from toploc.weights import METHOD

from .asgi.errors import error_body
from .log import logger
from .metrics import FETCHED
from .stores.database import StoreError
from .verify.route import description

if TYPE_CHECKING:
    from .server import Server

MISSING: Final = {
    "expired": "this response had proofs, and newer ones have taken their place",
    "unknown": "no proofs of this response are known here: nothing was proven under this id, or long ago, or by an API "
    "server with a memory of its own (--toploc-proofs FILE is shared); or a client chose an id that is no UUID",
}
"""Why there are no proofs of a response."""

OTHERS: Final = "other weights were loaded since the server's start"

router = APIRouter()


@router.get("/v1/toploc")
async def describe(request: Request) -> dict[str, Any]:
    """What this server proves, and with which versions."""
    server: Server = request.app.state.toploc
    welcome = server.welcome
    return {
        "version": VERSION,
        "scheme": SCHEME,
        "chunk_size": CHUNK_SIZE,
        "topk": TOPK,
        "model": server.served.model,
        "model_revision": server.served.revision,
        "weights": await _weights(server),
        "dtype": welcome.dtype,
        "sampler": welcome.sampler,
        "hidden_size": welcome.hidden_size,
        "keys": published_keys(server),
        **description(server),
        "engine": server.served.engine.model_dump(exclude_none=True) if server.served.engine else None,
    }


async def _weights(server: Server) -> dict[str, Any]:
    """Which version answers now, and the digest of the first."""
    try:
        version = max(slots.weights for slots in (await server.channel.slots()).values())
    except TimeoutError:
        return {"version": None, "problem": "a worker does not answer"}
    problem = OTHERS if version else server.weights.problem
    if problem is not None:
        return {"version": version, "problem": problem}
    return {"version": version, "method": METHOD, "sha256": server.weights.sha256}


@router.get("/v1/toploc/receipts/{response_id}")
async def receipts(response_id: str, request: Request) -> Response:
    """The recent receipts of a response: digests and names, no text of anybody's."""
    server: Server = request.app.state.toploc
    signer = server.signer
    if signer is None:
        return _error(404, "this server does not sign answers", "not_signing")
    try:
        documents = await signer.store.get(response_id)
    except StoreError:
        logger.exception("toploc: receipts cannot be read")
        return _error(503, "the receipts cannot be read", "receipts_unavailable")
    if not documents:
        return _error(404, "no recent receipt is of this response", "receipt_not_found")
    return Response(b'{"receipts":[' + ",".join(documents).encode() + b"]}", media_type="application/json")


@router.get("/v1/toploc/proofs/{response_id}")
async def proofs(response_id: str, request: Request) -> Response:
    """The proofs of a recent answer with what they say of it, its token ids too: for clients whose framework drops
    fields that it does not know."""
    server: Server = request.app.state.toploc
    try:
        field = await server.proofs.get(response_id)
    except StoreError:
        logger.exception("toploc: proofs cannot be read")
        FETCHED.labels("unavailable").inc()
        return _error(503, "the proofs cannot be read", "proofs_unavailable")
    FETCHED.labels(field if isinstance(field, str) else "found").inc()
    if isinstance(field, str):
        return _error(404, MISSING[field], f"proofs_{field}")
    body = b'{"id":' + orjson.dumps(response_id) + b',"' + FIELD_NAME.encode() + b'":' + field + b"}"
    return Response(body, media_type="application/json")


def published_keys(server: Server) -> list[dict[str, Any]]:
    keys = server.signer.keys if server.signer else ()
    return [key.model_dump(mode="json", exclude_none=True) for key in keys]


def _error(status: int, message: str, code: str) -> Response:
    return Response(error_body(status, message, None, code), status, media_type="application/json")
