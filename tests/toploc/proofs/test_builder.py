"""Streaming: the same proofs, however the rows arrive."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toploc import InvalidActivations, ProofBuilder, build_proofs_bytes

ROWS = torch.randn(100, 160, generator=torch.Generator().manual_seed(0)).bfloat16()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 45), max_size=12), st.sampled_from([1, 7, 32]))
def test_any_split_gives_the_same_proofs(sizes, chunk_size):
    builder = ProofBuilder(chunk_size)
    proofs = []
    position = 0
    for size in sizes:
        rows = ROWS[position : position + size]
        proofs += builder.append(rows)
        position += len(rows)
        assert len(proofs) == position // chunk_size
    proofs += builder.finish()
    assert proofs == build_proofs_bytes(ROWS[:position], chunk_size, 128, skip_prefill=True)
    assert builder.finish() == []


def test_single_rows_and_reuse():
    builder = ProofBuilder()
    for _ in range(2):
        proofs = [proof for row in ROWS for proof in builder.append(row)] + builder.finish()
        assert proofs == build_proofs_bytes(ROWS, 32, 128, skip_prefill=True)


def test_rows_may_change_after_they_were_given():
    rows = ROWS[:40].clone()
    builder = ProofBuilder()
    proofs = builder.append(rows[:20])
    rows[:20] = 0
    proofs += builder.append(rows[20:]) + builder.finish()
    assert proofs == build_proofs_bytes(ROWS[:40], 32, 128, skip_prefill=True)


@pytest.mark.parametrize(
    "rows",
    [ROWS.half(), ROWS[:, :159], ROWS.double(), ROWS[:, :100], ROWS[None], torch.tensor(1.0), ROWS.to("meta"), None],
    ids=["dtype", "width", "float64", "narrow", "3-d", "0-d", "meta", "none"],
)
def test_other_rows_change_nothing(rows):
    builder = ProofBuilder()
    proofs = builder.append(ROWS[:20])
    with pytest.raises(InvalidActivations):
        builder.append(rows)
    proofs += builder.append(ROWS[20:]) + builder.finish()
    assert proofs == build_proofs_bytes(ROWS, 32, 128, skip_prefill=True)


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"topk": 0}, {"topk": -1}])
def test_sizes(options):
    with pytest.raises(InvalidActivations):
        ProofBuilder(**options)
