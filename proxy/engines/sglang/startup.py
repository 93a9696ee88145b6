"""What a process that serves HTTP does around SGLang's own start."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toploc.errors import UnsupportedEngine

from ...answers.context import Served
from ...answers.later import Later
from ...application import attach, engine_of, handshake, log_start, watch_slots
from ...channel.client import Channel
from ...receipts.signing import Signer
from ...server import Server
from ...stores.proofs import MemoryProofs, SqliteProofs
from ...tracing import Spans
from ...verify.verifier import EngineVerifier
from ...weights import Source, first_weights
from .ending import or_end
from .generate import Proving
from .prefill import PrefillEngine
from .tracing import emit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from toploc.engine import Engine

    from ...channel.messages import Welcome
    from ...settings import Launch, Settings


def attach_to(app: FastAPI, settings: Settings, main: int) -> None:
    """Adds routes, middleware, and what is to be done before the first request.

    Args:
        main: the id of the server's main process.

    Raises:
        UnsupportedEngine: this SGLang's methods are not where they are known to be.
    """
    proving = Proving(settings.secret)
    proving.install()
    attach(app, settings)
    lifespan: Any = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def connect_and_live(app: FastAPI) -> AsyncIterator[Any]:
        with or_end(main):
            server = await connect(settings, proving)
        async with lifespan(app) as state:
            with or_end(main):
                app.state.toploc = with_verifier(app, server)
                log_start(app.state.toploc)
            yield state

    app.router.lifespan_context = connect_and_live


async def connect(settings: Settings, proving: Proving) -> Server:
    """Asks every scheduler who it is; from here on requests are tagged.

    Raises:
        UnsupportedEngine: one does not answer, or not as expected. The server ends: its answers would carry no proofs.
    """
    launch = settings.launch
    if launch is None:
        raise UnsupportedEngine("toploc: the settings are not those of `toploc sglang`")
    channel = Channel.connect(settings.channel, launch.engines, settings.finalize_timeout)
    welcome = await handshake(channel)
    source = Source(launch.model, launch.revision, launch.load_format, launch.download_dir)
    weights = await asyncio.to_thread(first_weights, source, settings.weights_digest)
    described = engine_of("sglang", welcome)
    proving.channel = channel
    return Server(
        settings=settings,
        served=Served(launch.name, welcome.dtype, welcome.rounded_from, welcome.sampler, described, weights.revision),
        weights=weights,
        channel=channel,
        welcome=welcome,
        signer=Signer.of(settings, weights.sha256),
        later=Later(),
        proofs=SqliteProofs(settings.proofs_file) if settings.proofs_file else MemoryProofs(),
        verifier=None,
        spans=Spans(emit),
        watch=asyncio.create_task(watch_slots(channel)),
    )


def with_verifier(app: FastAPI, server: Server) -> Server:
    """The server with what judges evidence, once SGLang has its tokenizer and routes."""
    launch, described = server.settings.launch, server.served.engine
    if launch is None or not launch.tokenizer or described is None:
        return server
    return replace(server, verifier=verifier_of(app, server, launch, server.welcome, described))


def verifier_of(app: FastAPI, server: Server, launch: Launch, welcome: Welcome, described: Engine) -> EngineVerifier:
    """By the routes and the engine that this process serves."""
    from sglang.srt.entrypoints.http_server import get_global_state

    engine = PrefillEngine(get_global_state().tokenizer_manager, app.state, launch)
    return EngineVerifier(engine, server.channel, welcome, server.settings, [launch.name], described)
