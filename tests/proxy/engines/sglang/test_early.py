"""Proofs of an answer that SGLang's scheduler says is over, before the HTTP process has its text; a worker answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scripted import PROOF, reply, worker
from toploc_proxy.answers.context import Call, RequestContext, Served
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import Discard, Done, Finalize, Proofs
from toploc_proxy.channel.tag import Tag
from toploc_proxy.engines.sglang.early import Running, ask_for_ended

from toploc.errors import ProofUnavailable
from toploc.protocol import RequestOptions

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = {"type": "length", "length": 3}
PROMPT = [5, 6, 7]


def outputs(**reasons: Any) -> Any:
    """A step in which each of these requests makes token 99, as SGLang's detokenizer sends it."""
    return SimpleNamespace(
        rids=list(reasons), finished_reasons=list(reasons.values()), output_ids=[[99] for _ in reasons]
    )


def run(directory: str, use: Callable[[Running, Any], Any]) -> list[Any]:
    """What the worker was asked; afterwards nothing is left."""
    asked: list[Any] = []

    def answer(request: Any) -> list[list[bytes]]:
        asked.append(request)
        return reply(Proofs([PROOF]) if isinstance(request, Finalize) else Done())

    async def main() -> None:
        channel = Channel.connect(directory, 1, 20.0)
        context = RequestContext(Served("m", "bfloat16", None), RequestOptions())
        running = Running(channel, context, Call("m", 1, prompt_token_ids=PROMPT), 0, Tag.new())
        await use(running, SimpleNamespace(output_ids=[1, 2], toploc_running=running))
        running.close()
        while not asked or channel._workers[0]._waiting:
            await asyncio.sleep(0.01)
        channel.close()

    with worker(directory, answer):
        asyncio.run(main())
    return asked


def test_proofs_are_asked_for_once(sockets: str) -> None:
    async def use(running: Running, state: Any) -> None:
        ask_for_ended({"a": state}, outputs(a=None))
        assert running.early is None
        ask_for_ended({"a": state}, outputs(a=LENGTH))
        assert running.early is not None
        assert (await running.fetch([1, 2, 99], LENGTH)).proofs == [PROOF]

    [asked] = run(sockets, use)
    assert asked.inputs == [7, 1, 2]


def test_what_was_not_asked_for_is_asked_for_then(sockets: str) -> None:
    async def use(running: Running, _: Any) -> None:
        assert (await running.fetch([1], LENGTH)).proofs == [PROOF]

    [asked] = run(sockets, use)
    assert asked.inputs == [7]


def test_an_answer_of_other_tokens_gets_no_proofs(sockets: str) -> None:
    async def use(running: Running, state: Any) -> None:
        ask_for_ended({"a": state}, outputs(a=LENGTH))
        with pytest.raises(RuntimeError, match="ended with 3 tokens, the answer with 2"):
            await running.fetch([1, 2], LENGTH)

    run(sockets, use)


@pytest.mark.parametrize(
    ("token_ids", "reason", "code"), [([1], {"type": "abort"}, "aborted"), ([], LENGTH, "no_output")]
)
def test_what_has_no_proofs_leaves_nothing(sockets: str, token_ids: list[int], reason: Any, code: str) -> None:
    async def use(running: Running, state: Any) -> None:
        ask_for_ended({"a": state}, outputs(a={"type": "abort"}))
        with pytest.raises(ProofUnavailable) as caught:
            await running.fetch(token_ids, reason)
        assert caught.value.code == code

    [asked] = run(sockets, use)
    assert isinstance(asked, Discard)


def test_others_are_left_alone(sockets: str) -> None:
    async def use(running: Running, state: Any) -> None:
        ask_for_ended({}, outputs(gone=LENGTH))
        ask_for_ended({"b": SimpleNamespace(output_ids=[])}, outputs(b=LENGTH))
        ask_for_ended({"a": state}, SimpleNamespace(rids=["a"], finished_reasons=[LENGTH], output_ids=None))
        assert running.early is None
        running.discard()

    [asked] = run(sockets, use)
    assert isinstance(asked, Discard)
