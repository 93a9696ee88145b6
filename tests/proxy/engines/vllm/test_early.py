"""Questions before `generate` has them, with vLLM's own messages and a worker that answers at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scripted import PROOF, reply, worker
from toploc_proxy.answers.proving import inputs_of
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import Finalize, Proofs
from toploc_proxy.channel.tag import EXTRA_ARG, Tag
from toploc_proxy.engines.vllm.early import EarlyQuestions
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason

from toploc.errors import UnsupportedEngine

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "early"
PROMPT = [5, 6, 7]


class Front:
    """An API server's engine client as far as it is looked at: what is sent, what comes back, what is known of each
    request."""

    def __init__(self, channel: Channel) -> None:
        self.early = EarlyQuestions(channel)
        self.added: list[str] = []
        self.coming: list[EngineCoreOutputs] = []
        self.states: dict[str, Any] = {}
        self.client: Any = SimpleNamespace(
            engine_core=SimpleNamespace(add_request_async=self._add, get_output_async=self._get),
            output_processor=SimpleNamespace(request_states=self.states),
        )
        self.early.attach(self.client)

    async def _add(self, request: EngineCoreRequest) -> None:
        self.added.append(request.request_id)

    async def _get(self) -> EngineCoreOutputs:
        return self.coming.pop(0)

    async def send(self, request_id: str, extra_args: dict[str, Any] | None, known: list[int]) -> None:
        """`known`: tokens of earlier steps."""
        request = EngineCoreRequest(
            request_id=request_id,
            prompt_token_ids=PROMPT,
            mm_features=None,
            sampling_params=SamplingParams(extra_args=extra_args),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        await self.client.engine_core.add_request_async(request)
        self.states[request_id] = SimpleNamespace(detokenizer=SimpleNamespace(output_token_ids=known))

    async def step(self, **ends: FinishReason | None) -> None:
        """A step in which each of these requests makes token 99."""
        outputs = [
            EngineCoreOutput(request_id=name, new_token_ids=[99], finish_reason=reason) for name, reason in ends.items()
        ]
        self.coming.append(EngineCoreOutputs(outputs=outputs))
        got = await self.client.engine_core.get_output_async()
        assert [output.request_id for output in got.outputs] == list(ends)


def run(directory: str, use: Callable[[Front], Any]) -> list[Finalize]:
    """What the worker was asked; afterwards nothing is left."""
    asked: list[Finalize] = []

    def answer(request: Any) -> list[list[bytes]]:
        asked.append(request)
        return reply(Proofs([PROOF]))

    async def main() -> None:
        channel = Channel.connect(directory, 1, 20.0)
        front = Front(channel)
        await use(front)
        assert (front.early._calls, front.early._running) == ({}, {})
        assert channel._workers[0]._waiting == {}
        channel.close()

    with worker(directory, answer):
        asyncio.run(main())
    return asked


def sealed(tag: Tag) -> dict[str, Any]:
    return {EXTRA_ARG: tag.seal(SECRET)}


def test_proofs_are_there_when_they_are_needed(sockets: str) -> None:
    """Without a turn of the event loop, which under load takes longer than all else."""
    tag = Tag.new()

    async def use(front: Front) -> None:
        front.early.watch(tag)
        await front.send("a", sealed(tag), [1, 2])
        await front.step(a=None)
        assert front.early.take(tag, 0) is None
        front.states["a"].detokenizer.output_token_ids = [1, 2, 99]
        await front.step(a=FinishReason.LENGTH)
        assert front.early.is_asked(tag, 0)
        early = front.early.take(tag, 0)
        assert early is not None
        assert early.inputs == [7, 1, 2, 99]
        channel = front.early._channel
        assert channel._workers[0]._socket.poll(20_000)
        with pytest.raises(StopIteration) as ended:
            channel.proofs(early.asked).send(None)
        assert ended.value.value == Proofs([PROOF])
        front.early.forget(tag)

    assert run(sockets, use) == [Finalize(tag.nonce, 0, [7, 1, 2, 99])]


def test_choices_of_one_call(sockets: str) -> None:
    tag = Tag.new(children=3)

    async def use(front: Front) -> None:
        front.early.watch(tag)
        for child in range(3):
            await front.send(f"{child}_a", sealed(tag), [child])
        await front.step(**{"2_a": FinishReason.STOP, "0_a": None})
        await front.step(**{"0_a": FinishReason.STOP})
        found = [front.early.take(tag, child) for child in range(3)]
        assert [early and early.inputs for early in found] == [[7, 0], None, [7, 2]]
        for early in found:
            if early is not None:
                assert await front.early._channel.proofs(early.asked) == Proofs([PROOF])
        front.early.forget(tag)

    assert [(request.child, request.inputs) for request in run(sockets, use)] == [(2, [7, 2]), (0, [7, 0])]


@pytest.mark.parametrize("reason", [FinishReason.ABORT, FinishReason.ERROR])
def test_nothing_is_asked_of_an_end_without_proofs(sockets: str, reason: FinishReason) -> None:
    tag = Tag.new()

    async def use(front: Front) -> None:
        front.early.watch(tag)
        await front.send("a", sealed(tag), [1])
        await front.step(a=reason)
        front.early.forget(tag)

    assert run(sockets, use) == []


def test_requests_of_others_pass(sockets: str) -> None:
    """Of a verification, which nobody watches, without a tag, and with a value that a client put in its place."""
    values = [sealed(Tag.new(start=2)), None, {}, {EXTRA_ARG: "x"}, {EXTRA_ARG: {}}, {EXTRA_ARG: None}]

    async def use(front: Front) -> None:
        for number, extra_args in enumerate(values):
            await front.send(str(number), extra_args, [1])
        await front.step(**dict.fromkeys(map(str, range(len(values))), FinishReason.STOP))
        assert len(front.added) == len(values)

    assert run(sockets, use) == []


def test_request_that_the_api_server_ended(sockets: str) -> None:
    """At a stop string, while the engine went on: its later tokens are none of the answer's."""
    tag = Tag.new()

    async def use(front: Front) -> None:
        front.early.watch(tag)
        await front.send("a", sealed(tag), [1])
        del front.states["a"]
        await front.step(a=FinishReason.LENGTH)
        assert not front.early.is_asked(tag, 0)
        front.early.forget(tag)

    assert run(sockets, use) == []


def test_call_that_ends_before_its_requests(sockets: str) -> None:
    """Its client left; proofs that were asked for are nobody's."""
    left, waiting = Tag.new(), Tag.new()

    async def use(front: Front) -> None:
        for name, tag in (("a", left), ("b", waiting)):
            front.early.watch(tag)
            await front.send(name, sealed(tag), [1])
        front.early.forget(left)
        await front.step(a=FinishReason.STOP, b=FinishReason.STOP)
        front.early.forget(waiting)
        assert front.early._channel._workers[0]._socket.poll(20_000)
        front.early._channel._workers[0].receive()

    assert [request.nonce for request in run(sockets, use)] == [waiting.nonce]


def test_nothing_that_goes_wrong_reaches_the_engine(sockets: str, caplog: pytest.LogCaptureFixture) -> None:
    """Answers of all requests come through what is wrapped here."""
    tag = Tag.new()

    async def use(front: Front) -> None:
        front.early.watch(tag)
        await front.send("a", sealed(tag), [1])
        front.states["a"] = object()
        await front.step(a=FinishReason.STOP)
        assert front.early.take(tag, 0) is None
        front.early.forget(tag)

    assert run(sockets, use) == []
    assert "asking early for proofs failed" in caplog.text


@pytest.mark.parametrize("missing", ["engine_core", "output_processor"])
def test_unknown_engine_client_is_refused(missing: str) -> None:
    channel = Channel([], 1.0)
    client = Front(channel).client
    delattr(client, missing)
    with pytest.raises(UnsupportedEngine, match=missing):
        EarlyQuestions(channel).attach(client)


def test_changed_signature_is_refused() -> None:
    async def add(raw: bytes) -> None:
        pass

    channel = Channel([], 1.0)
    client = Front(channel).client
    client.engine_core.add_request_async = add
    with pytest.raises(UnsupportedEngine, match="raw"):
        EarlyQuestions(channel).attach(client)


@pytest.mark.parametrize(
    ("prompt", "token_ids", "inputs"), [([5], [], []), ([4, 5], [1], [5]), ([4, 5], [1, 2, 3], [5, 1, 2])]
)
def test_inputs(prompt: list[int], token_ids: list[int], inputs: list[int]) -> None:
    assert inputs_of(prompt, token_ids) == inputs
