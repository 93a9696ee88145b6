"""The end of requests when the server is told to stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..guards import require_members
from . import reliances

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient


def end_requests_at_shutdown(engine_client: EngineClient) -> None:
    """Has `shutdown` tell every request that is running that the engine is gone.

    vLLM closes the engine's socket, from which the task that hands out outputs learns the engine's end and tells the
    requests, and cancels that task at once (`AsyncLLM.shutdown`, vllm/v1/engine/async_llm.py of 0.26.0 and 0.32.0). If
    the cancellation comes first, they wait for ever, and the server waits for them.

    Raises:
        UnsupportedEngine: this vLLM has not what is needed.
    """
    engine: Any = engine_client
    require_members(engine, reliances.ENGINE_END)
    require_members(engine.output_processor, reliances.REQUESTS_END)
    loop, stop = asyncio.get_running_loop(), engine.shutdown

    def shutdown(timeout: float | None = None) -> None:
        stop(timeout=timeout)
        if not loop.is_closed():
            loop.call_soon_threadsafe(engine.output_processor.propagate_error, engine.dead_error)

    engine.shutdown = shutdown
