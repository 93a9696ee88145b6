"""What an API server of ours does beside its engine's own: middleware, routes, and the handshake with its workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from toploc.engine import Engine
from toploc.errors import UnsupportedEngine

from .answers.middleware import ProofMiddleware
from .channel.messages import PROTOCOL
from .log import logger
from .metrics import SLOTS, SLOTS_IN_USE
from .page.document import put_before
from .page.route import router as page_router
from .routes import router
from .settings import Page, Role
from .verify.role import VerifierOnly
from .verify.route import router as verify_router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .channel.client import Channel
    from .channel.messages import Welcome
    from .server import Server
    from .settings import Settings

HANDSHAKE_TIMEOUT: Final = 60.0
"""Seconds for every worker to say who it is."""

POLL_SECONDS: Final = 1.0
"""Between two looks at the workers' slots."""


def attach(app: FastAPI, settings: Settings) -> None:
    """Adds our routes, and the middleware around all."""
    app.include_router(router)
    app.include_router(verify_router)
    if settings.page is not Page.NONE:
        app.include_router(page_router)
        put_before(app)
    app.add_middleware(ProofMiddleware, settings=settings)
    if settings.role is Role.VERIFIER:
        app.add_middleware(VerifierOnly)


def engine_of(name: str, welcome: Welcome) -> Engine:
    """What all of this server's answers say of the engine, and its reports of themselves."""
    mode = msgspec.structs.asdict(welcome.mode) if welcome.mode else {}
    return Engine.of(name, welcome.engine_version, model_runner=welcome.runner, **mode)


def refuse_seeds(settings: Settings, welcome: Welcome) -> None:
    """Raises UnsupportedEngine where seeds are to be drawn that nobody can replay."""
    if settings.seed_requests and welcome.sampler is None:
        raise UnsupportedEngine(
            "toploc: what this engine's sampler draws from a seed cannot be replayed (speculation, or a sampler that "
            "this version does not know); leave out --toploc-seed-requests"
        )


def log_start(server: Server) -> None:
    """One line on what is proven, and how."""
    settings, welcome, signer = server.settings, server.welcome, server.signer
    does = "verifying" if settings.role is Role.VERIFIER else "proving" if settings.proofs else "proving on request"
    logger.info(
        "toploc: %s %s with %s hidden states of %d%s, %d slots a worker, %s",
        does,
        server.served.model,
        welcome.dtype,
        welcome.hidden_size,
        f", model runner {welcome.runner}" if welcome.runner else "",
        welcome.slots,
        f"signed by {signer.key.public.key_id}" if signer else "not signed",
    )


async def handshake(channel: Channel) -> Welcome:
    """Every worker answers, speaks this version's protocol, and captures the same kind of rows."""
    try:
        workers = await channel.hello(HANDSHAKE_TIMEOUT)
    except TimeoutError:
        raise UnsupportedEngine(
            "toploc: a worker does not answer on the side channel, so its answers would carry no proofs; "
            "see its log for `toploc`, and check that the package is installed where it runs"
        ) from None
    first = workers[0]
    for worker in workers:
        if worker.protocol != PROTOCOL:
            raise UnsupportedEngine(
                f"toploc: a worker speaks side channel protocol {worker.protocol}, this server {PROTOCOL}; "
                "install the same version of toploc-proxy everywhere"
            )
        if (worker.dtype, worker.rounded_from, worker.hidden_size) != (
            first.dtype,
            first.rounded_from,
            first.hidden_size,
        ):
            raise UnsupportedEngine("toploc: workers serve different models")
    return first


async def watch_slots(channel: Channel) -> None:
    """Asks the workers for their slots again and again, until cancelled."""
    while True:
        try:
            for engine, slots in (await channel.slots()).items():
                SLOTS.labels(engine).set(slots.total)
                SLOTS_IN_USE.labels(engine).set(slots.in_use)
        except TimeoutError:
            logger.warning("toploc: a worker does not say how many slots it holds")
        await asyncio.sleep(POLL_SECONDS)
