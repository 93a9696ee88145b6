"""Routes of our own. They sit below `/v1`, which is what vLLM's `--api-key` guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from toploc.scheme import CHUNK_SIZE, SCHEME, TOPK, VERSION

from .asgi.errors import error_body
from .log import logger
from .receipts.store import ReceiptStoreError
from .verify.route import description

if TYPE_CHECKING:
    from .server import Server

router = APIRouter()


@router.get("/v1/toploc")
async def describe(request: Request) -> dict[str, Any]:
    """What this server proves, and with which versions."""
    server: Server = request.app.state.toploc
    welcome = server.welcome
    name, version = server.engine
    return {
        "version": VERSION,
        "scheme": SCHEME,
        "chunk_size": CHUNK_SIZE,
        "topk": TOPK,
        "model": server.served.model,
        "dtype": welcome.dtype,
        "sampler": welcome.sampler,
        "hidden_size": welcome.hidden_size,
        "keys": published_keys(server),
        **description(server),
        "engine": {"name": name, "version": version, "model_runner": welcome.runner},
    }


@router.get("/v1/toploc/receipts/{response_id}")
async def receipts(response_id: str, request: Request) -> Response:
    """The recent receipts of a response: digests and names, no text of anybody's."""
    server: Server = request.app.state.toploc
    signer = server.signer
    if signer is None:
        return _error(404, "this server does not sign answers", "not_signing")
    try:
        documents = await signer.store.get(response_id)
    except ReceiptStoreError:
        logger.exception("toploc: receipts cannot be read")
        return _error(503, "the receipts cannot be read", "receipts_unavailable")
    if not documents:
        return _error(404, "no recent receipt is of this response", "receipt_not_found")
    return Response(b'{"receipts":[' + ",".join(documents).encode() + b"]}", media_type="application/json")


def published_keys(server: Server) -> list[dict[str, Any]]:
    keys = server.signer.keys if server.signer else ()
    return [key.model_dump(mode="json", exclude_none=True) for key in keys]


def _error(status: int, message: str, code: str) -> Response:
    return Response(error_body(status, message, None, code), status, media_type="application/json")
