"""What an API server of ours does beside vLLM's own: middleware, routes, and the handshake with its workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import vllm.envs

from toploc.engine import Engine
from toploc.errors import UnsupportedEngine

from ...answers.context import Served
from ...answers.later import Later
from ...answers.middleware import ProofMiddleware
from ...channel.client import Channel
from ...channel.messages import PROTOCOL
from ...log import logger
from ...metrics import SLOTS, SLOTS_IN_USE
from ...receipts.signing import Signer
from ...routes import router
from ...server import Server
from ...settings import Role
from ...stores.proofs import MemoryProofs, SqliteProofs
from ...tracing import Spans
from ...verify.role import VerifierOnly
from ...verify.route import router as verify_router
from ...verify.verifier import EngineVerifier
from . import media
from .early import EarlyQuestions
from .generate import ProvingGenerate
from .prefill import PrefillEngine
from .shutdown import end_requests_at_shutdown
from .tracing import emit
from .weights import first_weights

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.config import ParallelConfig
    from vllm.engine.protocol import EngineClient

    from ...channel.messages import Welcome
    from ...settings import Settings

HANDSHAKE_TIMEOUT: Final = 60.0
"""Seconds for every worker to say who it is."""

POLL_SECONDS: Final = 1.0
"""Between two looks at the workers' slots."""


def attach(app: FastAPI, settings: Settings) -> None:
    """Adds our routes, and the middleware around all."""
    app.include_router(router)
    app.include_router(verify_router)
    app.add_middleware(ProofMiddleware, settings=settings)
    if settings.role is Role.VERIFIER:
        app.add_middleware(VerifierOnly)


async def connect(engine_client: EngineClient, state: State, args: Namespace, settings: Settings) -> None:
    """Puts what is ours around vLLM's, once the engine is up.

    1. Every worker says who it is.
    2. `state.toploc` has what requests share from here on.
    3. The renderer digests media, `generate` proves, and `shutdown` ends what runs.

    Raises:
        UnsupportedEngine: a worker does not answer, or not as expected; or what an operator asked for cannot be had.
    """
    channel = connect_workers(engine_client.vllm_config.parallel_config, settings)  # 1
    welcome = await handshake(channel)
    refuse_seeds(settings, welcome)
    names = args.served_model_name or [args.model]
    weights = await asyncio.to_thread(first_weights, engine_client.vllm_config, settings.weights_digest)
    engine = engine_of(welcome)
    state.toploc = server = Server(  # 2
        settings=settings,
        served=Served(names[0], welcome.dtype, welcome.rounded_from, welcome.sampler, engine, weights.revision),
        weights=weights,
        channel=channel,
        welcome=welcome,
        signer=Signer.of(settings, weights.sha256),
        later=Later() if getattr(vllm.envs, "VLLM_ENABLE_RESPONSES_API_STORE", False) else None,
        proofs=SqliteProofs(settings.proofs_file) if settings.proofs_file else MemoryProofs(),
        verifier=verifier_of(engine_client, state, channel, welcome, settings, names, engine),
        spans=Spans(emit if await engine_client.is_tracing_enabled() else None),
        watch=asyncio.create_task(watch_slots(channel)),
    )
    media.attach(engine_client.renderer)  # 3
    early = EarlyQuestions(channel)
    early.attach(engine_client)
    engine_client.generate = ProvingGenerate(
        engine_client.generate,
        channel,
        settings.secret,
        early=early,
        seed_requests=settings.seed_requests,
        spans=server.spans,
    )
    end_requests_at_shutdown(engine_client)
    log_start(server)


def verifier_of(
    engine_client: EngineClient,
    state: State,
    channel: Channel,
    welcome: Welcome,
    settings: Settings,
    names: Sequence[str],
    described: Engine,
) -> EngineVerifier | None:
    """None where the server has no tokenizer: proofs need none, but rehearsals and the text of chunks do."""
    if engine_client.vllm_config.model_config.skip_tokenizer_init:
        return None
    engine = PrefillEngine(engine_client, engine_client.generate, state, settings.verify_priority)
    return EngineVerifier(engine, channel, welcome, settings, names, described)


def engine_of(welcome: Welcome) -> Engine:
    """What all of this server's answers say of the engine, and its reports of themselves."""
    mode = msgspec.structs.asdict(welcome.mode) if welcome.mode else {}
    return Engine.of("vllm", welcome.engine_version, model_runner=welcome.runner, **mode)


def connect_workers(parallel: ParallelConfig, settings: Settings) -> Channel:
    """To the workers of the engines that this front end has.

    Behind a load balancer that is not vLLM's own, those are the engines of its node alone
    (vllm/v1/engine/core_client.py, engine_ranks_managed).
    """
    local = parallel.data_parallel_hybrid_lb or parallel.data_parallel_external_lb
    engines = parallel.data_parallel_size_local if local else parallel.data_parallel_size
    first = parallel.data_parallel_index if local else 0
    return Channel.connect(settings.channel, engines, settings.finalize_timeout, first=first)


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
        "toploc: %s %s with %s hidden states of %d, model runner %s, %d slots a worker, %s",
        does,
        server.served.model,
        welcome.dtype,
        welcome.hidden_size,
        welcome.runner,
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
