"""Rows of prefills that verify, from steps as the runners hand them over, to what a verifier is told of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from toploc_proxy.capture.step import Step
from toploc_proxy.channel.messages import Examine, Examined, Refusal
from toploc_proxy.channel.tag import EXTRA_ARG, Tag
from toploc_proxy.engines.vllm.head import Head
from toploc_proxy.examine.examiner import Examiner
from toploc_proxy.examine.prefills import Prefills

from toploc.proofs.chunks import find_points, split
from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import COLUMNS, TokenScores
from toploc.tokens.scoring import score_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET = "secret"
PROMPT, ANSWER, HIDDEN, VOCABULARY = 50, 70, 256, 300
IDS = np.random.default_rng(1).integers(0, VOCABULARY, PROMPT + ANSWER).tolist()
STATES = torch.randn(PROMPT + ANSWER, HIDDEN, generator=torch.manual_seed(1)).bfloat16()
WEIGHT = torch.randn(VOCABULARY, HIDDEN, generator=torch.manual_seed(2)).bfloat16() / 16


def step(pieces: Sequence[tuple[str, int, int]], *, wrong: int | None = None) -> Step:
    """Rows first … end - 1 of each request; `wrong` is a position whose input is another token."""
    positions = np.concatenate([np.arange(first, end) for _, first, end in pieces])
    counts = np.array([end - first for _, first, end in pieces])
    ids = np.array(IDS)[positions]
    if wrong is not None:
        ids[positions == wrong] += 1
    return Step(
        [name for name, _, _ in pieces],
        np.array([first for _, first, _ in pieces]),
        np.array([0, *np.cumsum(counts)]),
        # Padding, as of a CUDA graph.
        torch.cat([STATES[positions], torch.full((3, HIDDEN), torch.nan, dtype=torch.bfloat16)]),
        torch.tensor([*positions, 0, 0, 0]),
        torch.tensor([*ids, 0, 0, 0], dtype=torch.int32),
    )


@pytest.fixture
def prefills() -> Prefills:
    return Prefills(SECRET)


def begin(prefills: Prefills, name: str) -> str:
    tag = Tag.new(start=PROMPT - 1)
    assert prefills.register(name, {EXTRA_ARG: tag.seal(SECRET)})
    return tag.nonce


def ask(prefills: Prefills, nonce: str, *, sampling: Sampling | None = None) -> Examined | Refusal:
    examiner = Examiner(prefills, Head(lambda states: states @ WEIGHT.T), torch.device("cpu"))
    options = None if sampling is None else sampling.model_dump_json()
    reply = examiner.examine(Examine(nonce, IDS[:PROMPT], IDS[PROMPT:], options, [5]))
    assert isinstance(reply, Examined | Refusal)
    return reply


END = PROMPT + ANSWER - 1
WHOLE = [[("a", 0, END)]]
WAYS = {
    "at once": WHOLE,
    "in chunks": [[("a", 0, 20)], [("a", 20, 53)], [("a", 53, END)]],
    "beside others": [[("x", 0, 9), ("a", 0, 60)], [("a", 60, END), ("x", 9, 40)]],
    "preempted and run again": [[("a", 0, 100)], [("a", 0, 64)], [("a", 64, END)]],
    "with a step too many": [[("a", 0, END)], [("a", END, END + 1)]],
}


@pytest.mark.parametrize("way", WAYS)
def test_points_and_scores_are_those_of_the_whole_answer(prefills: Prefills, way: str) -> None:
    nonce = begin(prefills, "a")
    for pieces in WAYS[way]:
        prefills.record(step(pieces))
    sampling = Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.1)
    reply = ask(prefills, nonce, sampling=sampling)
    assert isinstance(reply, Examined)
    rows = STATES[PROMPT - 1 : END]
    points = find_points(split(rows, 32), 128)
    assert reply.indices == points.indices.tobytes()
    assert reply.patterns == points.patterns.tobytes()
    assert reply.rows == [32, 32, 6]
    expected = score_tokens([(rows @ WEIGHT.T).float()], IDS[:PROMPT], IDS[PROMPT:], sampling, [5])
    found = TokenScores.from_bytes(reply.scores)
    for name in COLUMNS[:-1]:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)
    assert prefills.held == 0


def test_rows_that_are_not_the_answers(prefills: Prefills) -> None:
    for pieces, wrong, code in (
        ([("a", 0, END - 1)], None, "rows_missing"),
        ([("a", 0, END)], 90, "rows_mismatch"),
        ([("b", 0, END)], None, "rows_missing"),
    ):
        nonce = begin(prefills, "a")
        prefills.record(step(pieces, wrong=wrong))
        reply = ask(prefills, nonce)
        assert isinstance(reply, Refusal)
        assert reply.code == code
    assert ask(prefills, "f" * 32).code == "capture_unknown"


def test_only_tags_of_this_server_with_a_start(prefills: Prefills) -> None:
    assert not prefills.register("a", {EXTRA_ARG: Tag.new().seal(SECRET)})
    assert not prefills.register("a", {EXTRA_ARG: Tag.new(start=3).seal("another secret")})
    assert not prefills.register("a", {})
    assert prefills.held == 0


def test_prefills_that_nobody_asks_about_are_forgotten(prefills: Prefills) -> None:
    begin(prefills, "a")
    prefills.record(step(WHOLE[0]))
    assert prefills.expire(0) == 0
    prefills.finished(["a"])
    assert prefills.expire(60) == 0
    assert prefills.expire(-1) == 1
    assert prefills.held == 0


def test_no_scores_by_a_head_that_is_not_the_models(prefills: Prefills) -> None:
    layer = SimpleNamespace(weight=WEIGHT[:300].clone())
    head = Head(lambda states: states @ WEIGHT.T, changes=lambda adapter: adapter == 7, copied=(WEIGHT[:300], layer))

    def scored(adapter: int | None) -> bool:
        nonce = begin(prefills, "a")
        prefills.record(step(WHOLE[0]))
        request = Examine(nonce, IDS[:PROMPT], IDS[PROMPT:], Sampling().model_dump_json(), [5], adapter)
        reply = Examiner(prefills, head, torch.device("cpu")).examine(request)
        assert isinstance(reply, Examined)
        return bool(reply.scores)

    assert scored(None)
    assert scored(6)
    assert not scored(7)
    layer.weight[0, 0] += 1  # as other weights that were loaded
    assert not scored(None)


def test_weights_replaced_since_the_prefill(prefills: Prefills) -> None:
    """Neither its rows nor its scores are of one model then: no verdict, rather than an accusation."""
    examiner = Examiner(prefills, None, torch.device("cpu"))
    stale, fresh = begin(prefills, "a"), None
    prefills.record(step([("a", 0, PROMPT + ANSWER - 1)]))
    prefills.weights_changing()
    fresh = begin(prefills, "b")
    prefills.record(step([("b", 0, PROMPT + ANSWER - 1)]))
    replies = [examiner.examine(Examine(nonce, IDS[:PROMPT], IDS[PROMPT:], None, [])) for nonce in (stale, fresh)]
    assert isinstance(replies[0], Refusal)
    assert replies[0].code == "weights_changed"
    assert isinstance(replies[1], Examined)


def test_nothing_is_examined_while_the_engine_sleeps(prefills: Prefills) -> None:
    examiner = Examiner(prefills, None, torch.device("cpu"))
    for sleeps in (True, False):
        nonce = begin(prefills, f"{sleeps}")
        prefills.record(step([(f"{sleeps}", 0, PROMPT + ANSWER - 1)]))
        if sleeps:
            examiner.sleep()
        else:
            examiner.wake()
        reply = examiner.examine(Examine(nonce, IDS[:PROMPT], IDS[PROMPT:], None, []))
        assert isinstance(reply, Refusal if sleeps else Examined), reply
    assert prefills._device_bytes == 0
