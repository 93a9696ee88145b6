"""The field of an ordinary answer, which no model writes, against what the models write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toploc_proxy.answers.context import Call, RequestContext, Served

from toploc.engine import Engine
from toploc.protocol import (
    ChoiceProofs,
    Media,
    ProofError,
    Receipt,
    RequestOptions,
    Statement,
    ToplocProofs,
    WeightSpan,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""JSON has no lone surrogates."""

ENGINES = st.sampled_from([None, Engine.of("vllm", "0.32.0"), Engine.of("vllm", "1", attention="A", device='"\\')])

MEDIA = Media(modality="image", offset=1, length=2, sha256="0" * 64)


def context(served: Served, *calls: Call, ids: bool = False) -> RequestContext:
    return RequestContext(served, RequestOptions(prompt_token_ids=ids), None, list(calls), settled=True)


def proven(token_ids: Sequence[int] = (5, 6), seed: int | None = None, **more: Any) -> ChoiceProofs:
    return ChoiceProofs(index=0, token_ids=tuple(token_ids), proofs=("+/8=",), seed=seed, **more)


@given(
    model=TEXT,
    revision=st.none() | TEXT,
    sampler=st.none() | TEXT.filter(bool),
    engine=ENGINES,
    token_ids=st.lists(st.integers(0, 2**32 - 1), max_size=40),
    prompt=st.lists(st.integers(0, 2**32 - 1), max_size=5),
    seed=st.none() | st.integers(-(2**63), 2**64 - 1),
    media=st.sampled_from([(), (MEDIA,)]),
    ids=st.booleans(),
    ended=st.sampled_from([None, [0]]),
)
def test_is_what_the_models_write(
    model: str,
    revision: str | None,
    sampler: str | None,
    engine: Engine | None,
    token_ids: list[int],
    prompt: list[int],
    seed: int | None,
    media: Sequence[Media],
    ids: bool,
    ended: list[int] | None,
) -> None:
    served = Served("served", "bfloat16", "float32" if ids else None, sampler, engine, revision)
    call = Call(model, 1, None, prompt, {0: proven(token_ids, seed)}, media=media)
    asked = context(served, call, ids=ids)
    assert asked.plain_json(ended) == asked.proofs(ended).to_json()


RECEIPT = Receipt.model_construct(statement=Statement.model_construct(), signature="")


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [Call("m", 1, None, [1], {})],
        [Call("m", 1, ProofError(code="beam_search", message="why"), [1], {})],
        [Call("m", 1, None, [1], {0: ChoiceProofs(index=0, token_ids=(1,), error=ProofError(code="x", message="y"))})],
        [Call("m", 1, None, [1], {0: proven(weights=(WeightSpan(version=1, start=0, end=2),))})],
        [Call("m", 1, None, [1], {0: proven().model_copy(update={"receipt": RECEIPT})})],
        [Call("m", 2, None, [1], {0: proven()})],
        [Call("m", 1, None, [1], {0: proven()}), Call("m", 1, None, [2], {0: proven()})],
    ],
)
def test_leaves_to_the_models_what_is_not_plain(calls: list[Call]) -> None:
    assert context(Served("m", "bfloat16", None), *calls).plain_json() is None


def test_leaves_answers_that_are_lost_and_choices_that_there_are_not() -> None:
    asked = context(Served("m", "bfloat16", None), Call("m", 1, None, [1], {0: proven()}))
    assert ToplocProofs.model_validate_json(asked.plain_json([0]) or b"")
    assert asked.plain_json([1]) is None
    asked.lost = ProofError(code="expired", message="why")
    assert asked.plain_json() is None
