"""Routes of our own. They sit below `/v1`, which is what vLLM's `--api-key` guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vllm
from fastapi import APIRouter, Request

from toploc.protocol import CHUNK_SIZE, SCHEME, TOPK, VERSION

if TYPE_CHECKING:
    from .messages import Welcome

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
        "engine": {"name": "vllm", "version": vllm.__version__, "model_runner": welcome.runner},
    }
