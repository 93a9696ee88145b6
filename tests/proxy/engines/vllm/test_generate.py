"""The wrapped `generate` around a small engine: real outputs of vLLM, a real recorder behind a real socket."""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from toploc_proxy.answers.context import RequestContext, Served, current
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.recorder import Recorder
from toploc_proxy.capture.step import Step
from toploc_proxy.channel.addresses import worker_address
from toploc_proxy.channel.client import Channel, _background
from toploc_proxy.channel.messages import PROTOCOL, Welcome
from toploc_proxy.channel.service import Service
from toploc_proxy.channel.tag import EXTRA_ARG, Tag
from toploc_proxy.engines.vllm.early import Early
from toploc_proxy.engines.vllm.generate import ProvingGenerate
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from toploc.proofs.format import encode_points
from toploc.proofs.topk import top_k
from toploc.protocol import ChoiceProofs, RequestOptions
from toploc.scheme import TOPK

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

SECRET = "generate"
HIDDEN = 128
PROMPT = [5, 6, 7]
DELTA, FINAL, CUMULATIVE = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY, RequestOutputKind.CUMULATIVE
HANG = 20.0


class Engine:
    """Generates token by token what it was told to, and records its rows as a worker does."""

    def __init__(self, answers: Sequence[Sequence[int]], finish: str = "stop") -> None:
        self.recorder = Recorder(HostRing(8, 64, HIDDEN, torch.bfloat16, TOPK), SECRET)
        self.answers = answers
        self.finish = finish
        self.received: list[SamplingParams] = []
        self.closed = 0
        self.fail_after = 10**9
        # Tokens per output; vLLM merges outputs that a slow reader has not taken.
        self.merge = 1
        self.states = np.random.default_rng(0).integers(0, 2**16, (len(answers), 400, HIDDEN), dtype=np.uint16)

    async def generate(
        self,
        prompt: Any,  # noqa: ARG002
        sampling_params: SamplingParams,
        request_id: str,
        **_: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.received.append(sampling_params)
        n = sampling_params.n
        ids = [request_id if n == 1 else f"{child}_{request_id}" for child in range(n)]
        for child in ids:
            self.recorder.register(child, sampling_params.extra_args, len(PROMPT))
        try:
            pending: list[list[int]] = [[] for _ in range(n)]
            for i in range(max(len(answer) for answer in self.answers[:n])):
                await asyncio.sleep(0)
                if i == self.fail_after:
                    raise RuntimeError("the engine died")
                outputs = []
                for child in range(n):
                    answer = self.answers[child]
                    if i >= len(answer):
                        continue
                    self._record(ids[child], child, i)
                    pending[child].append(answer[i])
                    last = i == len(answer) - 1
                    if last:
                        self.recorder.finished([ids[child]])
                    if sampling_params.output_kind is not FINAL and (last or len(pending[child]) == self.merge):
                        delta = sampling_params.output_kind is DELTA
                        outputs.append(self._choice(child, pending[child] if delta else answer[: i + 1], last=last))
                        pending[child] = []
                if outputs:
                    yield self._output(request_id, outputs)
            if sampling_params.output_kind is FINAL:
                choices = [self._choice(child, self.answers[child], last=True) for child in range(n)]
                yield self._output(request_id, choices)
        finally:
            self.closed += 1
            self.recorder.finished(ids)

    def _record(self, request_id: str, child: int, i: int) -> None:
        position = len(PROMPT) - 1 + i
        inputs = [*PROMPT, *self.answers[child]]
        self.recorder.record(
            Step(
                request_ids=[request_id],
                first_positions=np.array([position]),
                starts=np.array([0, 1]),
                hidden_states=torch.from_numpy(self.states[child, i : i + 1].view(np.int16)).view(torch.bfloat16),
                positions=torch.tensor([position]),
                input_ids=torch.tensor([inputs[position]]),
            )
        )

    def _choice(self, index: int, token_ids: Sequence[int], *, last: bool) -> CompletionOutput:
        finish = self.finish if last else None
        return CompletionOutput(index, "text", list(token_ids), None, None, finish_reason=finish)

    def _output(self, request_id: str, choices: list[CompletionOutput]) -> RequestOutput:
        finished = all(choice.finish_reason for choice in choices)
        return RequestOutput(request_id, None, PROMPT, None, choices, finished)

    def proofs(self, child: int) -> tuple[str, ...]:
        rows = self.states[child, : len(self.answers[child])]
        chunks = [rows[i : i + 32].ravel() for i in range(0, len(rows), 32)]
        return tuple(base64.b64encode(encode_points(*top_k(chunk, TOPK))).decode() for chunk in chunks)


def serve(engine: Engine, sockets: str) -> None:
    welcome = Welcome(PROTOCOL, "0", "v1", HIDDEN, "bfloat16", None, 8)
    Service(worker_address(sockets, 0), engine.recorder, welcome, capture_ttl=3600).start()


@asynccontextmanager
async def proving(
    engine: Engine,
    sockets: str,
    timeout: float = HANG,
    *,
    sampler: str | None = None,
    seed_requests: bool = False,
    **options: bool,
) -> AsyncIterator[tuple[ProvingGenerate, RequestContext]]:
    """A request's context and `generate`; afterwards nothing may be left of either."""
    channel = Channel.connect(sockets, 1, timeout)
    context = RequestContext(Served("model", "bfloat16", None, sampler), RequestOptions(**options))
    token = current.set(context)
    try:
        yield ProvingGenerate(engine.generate, channel, SECRET, seed_requests=seed_requests), context
        while _background:
            await asyncio.sleep(0.01)
    finally:
        current.reset(token)
        channel.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def params(kind: RequestOutputKind = DELTA, **more: Any) -> SamplingParams:
    return SamplingParams(max_tokens=1000, output_kind=kind, **more)


def run(
    engine: Engine, sockets: str, sampling_params: SamplingParams, timeout: float = HANG, prompt: Any = None
) -> tuple[RequestContext, list[RequestOutput]]:
    """One request to its end: its context, and all outputs."""

    async def main() -> tuple[RequestContext, list[RequestOutput]]:
        async with proving(engine, sockets, timeout) as (generate, context):
            return context, [output async for output in generate(prompt, sampling_params, "id")]

    return asyncio.run(main())


def choices(context: RequestContext) -> dict[int, ChoiceProofs]:
    (call,) = context.calls
    return call.choices


def codes(context: RequestContext) -> dict[int, str | None]:
    return {index: choice.error and choice.error.code for index, choice in choices(context).items()}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vllm.toploc")


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("kind", [DELTA, CUMULATIVE, FINAL])
def test_one_choice(sockets: str, kind: RequestOutputKind, length: int) -> None:
    engine = Engine([list(range(length))])
    serve(engine, sockets)
    context, outputs = run(engine, sockets, params(kind))
    assert choices(context) == {
        0: ChoiceProofs(index=0, token_ids=tuple(range(length)), proofs=engine.proofs(0)),
    }
    assert context.calls[0].prompt_token_ids == PROMPT
    assert len(outputs) == (1 if kind is FINAL else length)
    assert engine.recorder.slots_in_use == 0
    assert engine.closed == 1


def test_seeds(sockets: str) -> None:
    """Of the request, else our own if we are to draw them; none of greedy answers or where nobody could replay them."""
    engine = Engine([[1] * 3, [2] * 3])
    serve(engine, sockets)

    async def seeds(params: SamplingParams, sampler: str | None, **options: bool) -> list[int | None]:
        async with proving(engine, sockets, sampler=sampler, **options) as (generate, context):
            async for _ in generate(None, params, "id"):
                pass
        field = context.proofs()
        assert field.choices is not None
        found = [choice.seed for choice in field.choices]
        assert field.sampler == (None if found[0] is None else sampler)
        return found

    async def main() -> None:
        given = params(FINAL, n=2, temperature=1.0)
        assert given.sampling_type.name == "RANDOM"
        drawn, more = [await seeds(given, "murmur3", seed_requests=True) for _ in range(2)]
        assert given.seed is None
        assert engine.received[-1].sampling_type.name == "RANDOM_SEED"
        assert drawn == [engine.received[-2].seed, engine.received[-2].seed + 1]
        assert drawn != more
        assert await seeds(given, "murmur3") == [None, None]
        seeded = params(FINAL, n=2, temperature=1.0, seed=5)
        assert await seeds(seeded, "murmur3", seed_requests=True) == await seeds(seeded, "murmur3") == [5, 6]
        assert await seeds(seeded, None) == [None, None]
        greedy = params(FINAL, temperature=0.0, seed=5)
        assert await seeds(greedy, "murmur3", seed_requests=True) == [None]

    asyncio.run(main())


@pytest.mark.parametrize("merge", [2, 7, 1000])
@pytest.mark.parametrize("kind", [DELTA, CUMULATIVE])
def test_merged_outputs(sockets: str, kind: RequestOutputKind, merge: int) -> None:
    engine = Engine([list(range(40))])
    engine.merge = merge
    serve(engine, sockets)
    context, _ = run(engine, sockets, params(kind))
    assert choices(context)[0].token_ids == tuple(range(40))
    assert choices(context)[0].proofs == engine.proofs(0)


@pytest.mark.parametrize("kind", [DELTA, CUMULATIVE, FINAL])
def test_several_choices(sockets: str, kind: RequestOutputKind) -> None:
    engine = Engine([[1] * 40, [2] * 3, [3] * 40])
    serve(engine, sockets)
    context, outputs = run(engine, sockets, params(kind, n=3))
    assert {index: (choice.token_ids, choice.proofs) for index, choice in choices(context).items()} == {
        child: (tuple(engine.answers[child]), engine.proofs(child)) for child in range(3)
    }
    assert engine.recorder.slots_in_use == 0
    assert outputs[-1].finished


def test_proofs_are_there_before_the_output_that_ends_a_choice(sockets: str) -> None:
    """The middleware does not wait for them."""
    engine = Engine([[1], [2] * 3])
    serve(engine, sockets)

    async def main() -> list[tuple[list[int], list[int]]]:
        async with proving(engine, sockets) as (generate, context):
            return [
                ([choice.index for choice in output.outputs if choice.finish_reason], sorted(choices(context)))
                async for output in generate(None, params(n=2), "id")
            ]

    assert asyncio.run(main()) == [([0], [0]), ([], [0]), ([1], [0, 1])]


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_aborted_choice_is_not_proven(sockets: str, finish: str) -> None:
    engine = Engine([[1, 2, 3]], finish=finish)
    serve(engine, sockets)
    context, outputs = run(engine, sockets, params())
    assert codes(context) == {0: "aborted"}
    assert choices(context)[0].token_ids == (1, 2, 3)
    assert len(outputs) == 3
    assert engine.recorder.slots_in_use == 0


@pytest.mark.parametrize("finish", ["stop", "length", "repetition", "a later vLLM's"])
def test_other_ends_are_proven(sockets: str, finish: str) -> None:
    engine = Engine([[1, 2, 3]], finish=finish)
    serve(engine, sockets)
    assert codes(run(engine, sockets, params())[0]) == {0: None}


def test_answer_without_tokens(sockets: str) -> None:
    engine = Engine([[]])
    serve(engine, sockets)

    async def empty(*_: Any, **__: Any) -> AsyncGenerator[RequestOutput, None]:
        engine.recorder.register("id", _[1].extra_args, len(PROMPT))
        yield engine._output("id", [engine._choice(0, [], last=True)])

    engine.generate = empty  # type: ignore[method-assign]
    context, _ = run(engine, sockets, params())
    assert choices(context) == {0: ChoiceProofs(index=0, token_ids=(), proofs=())}


def test_reader_that_leaves_early(sockets: str) -> None:
    engine = Engine([[1] * 50, [2] * 50])
    serve(engine, sockets)

    async def main() -> None:
        async with proving(engine, sockets) as (generate, context):
            outputs = generate(None, params(n=2), "id")
            await anext(outputs)
            assert engine.recorder.slots_in_use == 2
            await outputs.aclose()
            assert engine.closed == 1
            assert context.calls[0].choices == {}
        assert engine.recorder.slots_in_use == 0

    asyncio.run(main())


def test_cancelled_request(sockets: str) -> None:
    """As a server does with the handler of a client that left."""
    engine = Engine([[1] * 10**6])
    serve(engine, sockets)

    async def main() -> None:
        async with proving(engine, sockets) as (generate, _):

            async def read() -> None:
                async for _ in generate(None, params(), "id"):
                    pass

            reading = asyncio.create_task(read())
            while not engine.recorder.slots_in_use:
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            assert engine.closed == 1
        assert engine.recorder.slots_in_use == 0

    engine.states = np.zeros((1, 10**5, HIDDEN), dtype=np.uint16)
    asyncio.run(main())


def test_cancelled_while_proofs_are_fetched(sockets: str) -> None:
    engine = Engine([[1, 2]])

    async def main() -> None:
        async with proving(engine, sockets, timeout=HANG) as (generate, context):
            outputs = generate(None, params(FINAL), "id")
            reading = asyncio.ensure_future(anext(outputs))
            while not engine.received:
                await asyncio.sleep(0)
            # Nobody serves yet.
            await asyncio.sleep(0.05)
            reading.cancel()
            await asyncio.wait([reading])
            assert engine.closed == 1
            assert context.calls[0].choices == {}
            serve(engine, sockets)
        assert engine.recorder.slots_in_use == 0

    asyncio.run(main())


def test_error_of_the_engine_is_the_callers(sockets: str) -> None:
    engine = Engine([[1] * 9])
    engine.fail_after = 4
    serve(engine, sockets)

    async def main() -> None:
        async with proving(engine, sockets) as (generate, context):
            outputs = generate(None, params(), "id")
            for _ in range(4):
                await anext(outputs)
            with pytest.raises(RuntimeError, match="the engine died"):
                await anext(outputs)
            assert context.calls[0].choices == {}
        assert engine.recorder.slots_in_use == 0

    asyncio.run(main())


def test_generation_that_is_never_read(sockets: str) -> None:
    engine = Engine([[1]])
    serve(engine, sockets)

    async def main() -> None:
        async with proving(engine, sockets) as (generate, context):
            outputs = generate(None, params(), "id")
            assert len(context.calls) == 1
            await outputs.aclose()
        assert engine.received == []

    asyncio.run(main())


def test_silent_worker(sockets: str) -> None:
    engine = Engine([[1, 2], [3]])
    context, outputs = run(engine, sockets, params(n=2), timeout=0.05)
    assert codes(context) == {0: "channel_timeout", 1: "channel_timeout"}
    assert choices(context)[0].token_ids == (1, 2)
    assert [[list(choice.token_ids) for choice in output.outputs] for output in outputs] == [[[1], [3]], [[2]]]


DYING = """
import os, sys, zmq
socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1])
print(flush=True)
socket.recv_multipart()
os._exit(9)
"""


def test_worker_that_dies_when_asked(sockets: str) -> None:
    engine = Engine([[1, 2]])
    command = [sys.executable, "-c", DYING, worker_address(sockets, 0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        context, outputs = run(engine, sockets, params(), timeout=0.5)
    assert worker.returncode == 9
    assert codes(context) == {0: "channel_timeout"}
    assert len(outputs) == 2


def test_wrong_rows_are_reported(sockets: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "vllm.toploc")
    engine = Engine([[1, 2, 3]])
    serve(engine, sockets)
    record = engine._record

    def skip(request_id: str, child: int, i: int) -> None:
        if i != 1:
            record(request_id, child, i)

    engine._record = skip  # type: ignore[method-assign]
    context, outputs = run(engine, sockets, params())
    assert codes(context) == {0: "rows_missing"}
    [line] = caplog.records
    assert vars(line).items() >= {"request_id": "id", "choice": 0, "outcome": "rows_missing"}.items()
    assert len(outputs) == 3


def test_unexpected_error_leaves_the_text() -> None:
    class Broken(Channel):
        async def finalize(self, *_: Any) -> list[bytes]:
            raise OSError

    async def main() -> None:
        context = RequestContext(Served("model", "bfloat16", None), RequestOptions())
        token = current.set(context)
        channel = Broken([], 1)
        generate = ProvingGenerate(Engine([[1, 2]]).generate, channel, SECRET)
        assert len([output async for output in generate(None, params(), "id")]) == 2
        assert codes(context) == {0: "internal_error"}
        current.reset(token)

    asyncio.run(main())


def test_early_question_about_other_tokens_proves_nothing(sockets: str, caplog: pytest.LogCaptureFixture) -> None:
    """No proof vouches for tokens that the answer has not."""
    caplog.set_level(logging.ERROR, "vllm.toploc")
    engine = Engine([[1, 2]])
    serve(engine, sockets)

    async def main() -> None:
        async with proving(engine, sockets) as (generate, context):
            early = generate._early
            watch = early.watch

            def watch_and_ask(tag: Tag) -> None:
                watch(tag)
                inputs = [PROMPT[-1]]
                asked = early._channel.ask_for_proofs(tag.nonce, 0, inputs)
                early._calls[tag.nonce].early[0] = Early(inputs, asked)

            early.watch = watch_and_ask  # type: ignore[method-assign]
            assert len([output async for output in generate(None, params(), "id")]) == 2
            assert codes(context) == {0: "internal_error"}
            assert (early._calls, early._channel._workers[0]._waiting) == ({}, {})

    asyncio.run(main())
    assert "the engine ended with 1 tokens, the answer with 2" in caplog.text


# Parameters


def tag_of(sampling_params: SamplingParams) -> Tag | None:
    return Tag.open(sampling_params.extra_args, SECRET)


def test_parameters_are_tagged_in_a_copy(sockets: str) -> None:
    engine = Engine([[1]] * 3)
    serve(engine, sockets)
    extra_args = {"theirs": [1]}
    sampling_params = params(n=3, extra_args=extra_args)
    before = copy.deepcopy(sampling_params)
    run(engine, sockets, sampling_params)
    (received,) = engine.received
    tag = tag_of(received)
    assert tag is not None
    assert (tag.children, tag.start) == (3, None)
    assert received.extra_args is not None
    assert {**received.extra_args, EXTRA_ARG: None} == {"theirs": [1], EXTRA_ARG: None}
    assert extra_args == {"theirs": [1]}
    assert sampling_params.extra_args is extra_args
    assert sampling_params == before


def test_prompts_that_share_parameters_get_tags_of_their_own(sockets: str) -> None:
    engine = Engine([[1]])
    serve(engine, sockets)
    shared = params(extra_args={})

    async def main() -> None:
        async with proving(engine, sockets) as (generate, context):
            outputs = [generate(None, shared, f"id-{i}") for i in range(3)]
            for generation in reversed(outputs):
                async for _ in generation:
                    pass
            assert [call.choices[0].proofs for call in context.calls] == [engine.proofs(0)] * 3

    asyncio.run(main())
    tags = [tag_of(received) for received in engine.received]
    assert len({tag.nonce for tag in tags if tag is not None}) == 3


FORGED = [Tag.new().seal(SECRET), {"nonce": 1}, None, "x", 0, []]


@pytest.mark.parametrize("value", FORGED)
def test_clients_own_value_is_dropped(sockets: str, value: object) -> None:
    engine = Engine([[1]])
    serve(engine, sockets)
    theirs = {EXTRA_ARG: value, "other": 1}
    context, _ = run(engine, sockets, params(extra_args=theirs))
    (received,) = engine.received
    assert received.extra_args is not None
    assert received.extra_args[EXTRA_ARG] != value
    assert received.extra_args["other"] == 1
    assert theirs == {EXTRA_ARG: value, "other": 1}
    assert codes(context) == {0: None}


@pytest.mark.parametrize("value", FORGED)
def test_clients_own_value_is_dropped_where_nothing_is_proven(sockets: str, value: object) -> None:
    engine = Engine([[1]])
    theirs = {EXTRA_ARG: value, "other": 1}

    async def main() -> None:
        async with proving(engine, sockets) as (generate, _):
            current.set(None)
            assert len([output async for output in generate(None, params(extra_args=theirs), "id")]) == 1

    asyncio.run(main())
    assert engine.received[0].extra_args == {"other": 1}
    assert engine.recorder.slots_in_use == 0


@pytest.mark.parametrize("kind", ["embeds", "enc_dec", "multimodal"])
def test_unprovable_prompts(sockets: str, kind: str) -> None:
    engine = Engine([[1], [2]])
    context, outputs = run(engine, sockets, params(n=2), prompt={"type": kind})
    (call,) = context.calls
    assert call.refusal is not None
    assert call.refusal.code == "unsupported_prompt"
    assert engine.received[0].extra_args is None
    assert len(outputs) == 1
    error = context.proofs().error
    assert error is not None
    assert error.code == "unsupported_prompt"


@pytest.mark.parametrize("prompt", [{"type": "token", "prompt_token_ids": PROMPT}, {"prompt_token_ids": PROMPT}, "a"])
def test_provable_prompts(sockets: str, prompt: Any) -> None:
    engine = Engine([[1]])
    serve(engine, sockets)
    assert codes(run(engine, sockets, params(), prompt=prompt)[0]) == {0: None}


def test_adapter_is_named_as_the_model(sockets: str) -> None:
    from vllm.lora.request import LoRARequest

    engine = Engine([[1]])
    serve(engine, sockets)

    async def main() -> str:
        async with proving(engine, sockets) as (generate, context):
            lora = LoRARequest("adapter", 1, "/adapter")
            async for _ in generate(None, params(), "id", lora_request=lora):
                pass
            return context.proofs().model

    assert asyncio.run(main()) == "adapter"


def test_signature_is_the_engines(sockets: str) -> None:
    """Callers pass arguments by position or by name."""
    engine = Engine([[1]])
    serve(engine, sockets)

    async def main() -> None:
        async with proving(engine, sockets) as (generate, context):
            by_name: Callable[..., Any] = generate
            async for _ in by_name(prompt=None, sampling_params=params(), request_id="id"):
                pass
            assert codes(context) == {0: None}

    asyncio.run(main())
