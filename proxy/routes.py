"""Routes of our own. They sit below `/v1`, which is what vLLM's `--api-key` guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vllm
from fastapi import APIRouter, Request, Response

from toploc.scheme import CHUNK_SIZE, SCHEME, TOPK, VERSION

from .asgi.errors import error_body
from .log import logger
from .receipts.store import ReceiptStoreError
from .verify.route import description

if TYPE_CHECKING:
    from starlette.datastructures import State

    from .channel.messages import Welcome
    from .receipts.signing import Signer

router = APIRouter()


@router.get("/v1/toploc")
async def describe(request: Request) -> dict[str, Any]:
    """What this server proves, and with which versions."""
    state = request.app.state
    welcome: Welcome = state.toploc_welcome
    return {
        "version": VERSION,
        "scheme": SCHEME,
        "chunk_size": CHUNK_SIZE,
        "topk": TOPK,
        "model": state.toploc_served.model,
        "dtype": welcome.dtype,
        "hidden_size": welcome.hidden_size,
        "keys": published_keys(state),
        **description(state),
        "engine": {"name": "vllm", "version": vllm.__version__, "model_runner": welcome.runner},
    }


@router.get("/v1/toploc/receipts/{response_id}")
async def receipts(response_id: str, request: Request) -> Response:
    """The recent receipts of a response: digests and names, no text of anybody's."""
    signer: Signer | None = request.app.state.toploc_signer
    if signer is None:
        return _error(404, "this server does not sign answers", "not_signing")
    try:
        found = await signer.store.get(response_id)
    except ReceiptStoreError:
        logger.exception("toploc: receipts cannot be read")
        return _error(503, "the receipts cannot be read", "receipts_unavailable")
    if not found:
        return _error(404, "no recent receipt is of this response", "receipt_not_found")
    return Response(b'{"receipts":[' + ",".join(found).encode() + b"]}", media_type="application/json")


def published_keys(state: State) -> list[dict[str, Any]]:
    signer: Signer | None = state.toploc_signer
    return [key.model_dump(mode="json", exclude_none=True) for key in signer.keys] if signer else []


def _error(status: int, message: str, code: str) -> Response:
    return Response(error_body(status, message, None, code), status, media_type="application/json")
