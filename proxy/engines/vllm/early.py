"""Asks for an answer's proofs as soon as the engine says that it is over.

The API server's own work on a step of many answers takes longer than their proofs, and what is awaited then comes
behind all of it. Asked for before, they are there when they are needed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...answers.proving import inputs_of
from ...channel.tag import EXTRA_ARG
from ...log import logger
from ..guards import require_members, require_parameters
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm.engine.protocol import EngineClient
    from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest

    from ...channel.client import Asked, Channel
    from ...channel.tag import Tag

UNPROVEN: Final = frozenset({"abort", "error"})
"""Ends of which no proofs are asked for."""


class Early(NamedTuple):
    """Proofs that are asked for already, for tokens that went in."""

    inputs: list[int]
    asked: Asked


class _Running(NamedTuple):
    """A request in the engine: which choice of which call it makes, after which prompt."""

    call: _WatchedCall
    child: int
    prompt: Sequence[int]


@dataclass(slots=True, eq=False)
class _WatchedCall:
    """One call of `generate`, the engine's ids of its requests, and what is asked for, by choice."""

    tag: Tag
    requests: list[str] = field(default_factory=list)
    early: dict[int, Early] = field(default_factory=dict)


class EarlyQuestions:
    """Sees what an API server sends to its engine and what comes back, before vLLM does."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._calls: dict[str, _WatchedCall] = {}
        self._running: dict[str, _Running] = {}
        self._states: dict[str, Any] = {}

    def attach(self, engine_client: EngineClient) -> None:
        """Wraps the engine's client (EngineCoreClient, vllm/v1/engine/core_client.py).

        Raises:
            UnsupportedEngine: this vLLM has not what is needed.
        """
        engine: Any = engine_client
        require_members(engine, reliances.ENGINE)
        require_members(engine.output_processor, reliances.REQUEST_STATES)
        core = engine.engine_core
        require_members(core, reliances.ENGINE_CORE)
        require_parameters(core.add_request_async, reliances.ADD_REQUEST)
        self._states = engine.output_processor.request_states
        add_request, get_output = core.add_request_async, core.get_output_async

        @functools.wraps(add_request)
        async def add_request_and_note(request: EngineCoreRequest) -> None:
            self.sent(request)
            await add_request(request)

        @functools.wraps(get_output)
        async def get_output_and_ask() -> EngineCoreOutputs:
            outputs: EngineCoreOutputs = await get_output()
            self.received(outputs)
            return outputs

        core.add_request_async = add_request_and_note
        core.get_output_async = get_output_and_ask

    def watch(self, tag: Tag) -> None:
        """A call of `generate` is about to send its requests."""
        self._calls[tag.nonce] = _WatchedCall(tag)

    def forget(self, tag: Tag) -> None:
        """It is over; nothing of it remains."""
        call = self._calls.pop(tag.nonce)
        for request_id in call.requests:
            self._running.pop(request_id, None)
        for early in call.early.values():
            early.asked.forget()

    def is_asked(self, tag: Tag, child: int) -> bool:
        """Whether a choice's proofs are asked for."""
        return child in self._calls[tag.nonce].early

    def take(self, tag: Tag, child: int) -> Early | None:
        """What is asked for on behalf of a choice, for the caller to wait for or forget."""
        return self._calls[tag.nonce].early.pop(child, None)

    def sent(self, request: EngineCoreRequest) -> None:
        """Notes a request of a call that is watched."""
        params, prompt = request.sampling_params, request.prompt_token_ids
        sealed = params.extra_args.get(EXTRA_ARG) if params is not None and params.extra_args else None
        call = self._calls.get(sealed.get("nonce", "")) if isinstance(sealed, dict) else None
        child = call.tag.child_index(request.request_id) if call is not None else None
        if call is not None and child is not None and prompt:
            call.requests.append(request.request_id)
            self._running[request.request_id] = _Running(call, child, prompt)

    def received(self, outputs: EngineCoreOutputs) -> None:
        """Asks for the proofs of all that ended in this step."""
        for output in outputs.outputs:
            if output.finish_reason is None:
                continue
            running = self._running.pop(output.request_id, None)
            # None if the API server has ended the request itself.
            state = self._states.get(output.request_id)
            if running is None or state is None or str(output.finish_reason) in UNPROVEN:
                continue
            try:
                inputs = inputs_of(running.prompt, [*state.detokenizer.output_token_ids, *output.new_token_ids])
                asked = self._channel.ask_for_proofs(running.call.tag.nonce, running.child, inputs)
                running.call.early[running.child] = Early(inputs, asked)
            except Exception:
                # They are asked for when they are needed.
                logger.exception("toploc: asking early for proofs failed")
