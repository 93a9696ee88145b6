"""What an API server of ours does once vLLM's engine is up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import vllm.envs

from ...answers.context import Served
from ...answers.later import Later
from ...application import engine_of, handshake, log_start, refuse_seeds, watch_slots
from ...channel.client import Channel
from ...receipts.signing import Signer
from ...server import Server
from ...stores.proofs import MemoryProofs, SqliteProofs
from ...tracing import Spans
from ...verify.verifier import EngineVerifier
from ...weights import first_weights
from . import media
from .early import EarlyQuestions
from .generate import ProvingGenerate
from .prefill import PrefillEngine
from .shutdown import end_requests_at_shutdown
from .tracing import emit
from .weights import source_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from starlette.datastructures import State
    from vllm.config import ParallelConfig
    from vllm.engine.protocol import EngineClient

    from toploc.engine import Engine

    from ...channel.messages import Welcome
    from ...settings import Settings


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
    weights = await asyncio.to_thread(first_weights, source_of(engine_client.vllm_config), settings.weights_digest)
    engine = engine_of("vllm", welcome)
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


def connect_workers(parallel: ParallelConfig, settings: Settings) -> Channel:
    """To the workers of the engines that this front end has.

    Behind a load balancer that is not vLLM's own, those are the engines of its node alone
    (vllm/v1/engine/core_client.py, engine_ranks_managed).
    """
    local = parallel.data_parallel_hybrid_lb or parallel.data_parallel_external_lb
    engines = parallel.data_parallel_size_local if local else parallel.data_parallel_size
    first = parallel.data_parallel_index if local else 0
    return Channel.connect(settings.channel, engines, settings.finalize_timeout, first=first)
