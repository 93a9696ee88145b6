"""vLLM's endpoint plugin. vLLM logs what fails while it loads one, and serves without it (vllm/plugins/__init__.py): so
this module and its imports are few, and all that may fail comes later, when it ends the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...settings import Settings

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.tasks import SupportedTask


class ToplocEndpoint:
    """See vllm/plugins/endpoint_plugins/interface.py. vLLM loads it only where `VLLM_PLUGINS` names it."""

    name = "toploc"
    required_tasks: tuple[SupportedTask, ...] | None = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Raises ImportError if a package that is needed is missing."""
        settings = Settings.from_environ()
        if settings is not None:
            from ...application import attach

            attach(app, settings)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Raises UnsupportedEngine if a worker does not answer, or not as expected: the server would serve answers
        without proofs."""
        settings = Settings.from_environ()
        if settings is not None and engine_client is not None:
            from .startup import connect

            await connect(engine_client, state, args, settings)
