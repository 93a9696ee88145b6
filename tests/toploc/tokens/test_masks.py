"""Masks: bits as vLLM's back ends fill them, logits and log-probabilities under them, and how many there may be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toploc.tokens.logprobs import token_logprobs
from toploc.tokens.masks import Masks, MaskTable, TooManyMasks, is_left, row_of, without
from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import COLUMNS
from toploc.tokens.scoring import score_tokens

VOCABULARY, TOKENS = 75, 200
WORDS = 3


def left_at(seed: int) -> np.ndarray:
    """Which tokens are left at each place, bool [tokens, vocabulary]: one at least, and all at every seventh."""
    random = np.random.default_rng(seed)
    left = random.random((TOKENS, VOCABULARY)) < 0.3
    left[np.arange(TOKENS), random.integers(VOCABULARY, size=TOKENS)] = True
    left[::7] = True
    return left


def masks_of(raw: np.ndarray, processed: np.ndarray) -> Masks:
    table = MaskTable()
    for rows in zip(raw, processed, strict=True):
        both = [np.flatnonzero(row) for row in rows]
        table.add(*(None if row.all() else row_of(ids, WORDS) for row, ids in zip(rows, both, strict=True)))
    masks = table.masks()
    assert masks is not None
    return masks


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(3)) * 3


def test_bits() -> None:
    row = row_of(np.array([0, 31, 32, 74]), WORDS)
    assert row.dtype == np.int32
    assert [token for token in range(96) if is_left(row, token)] == [0, 31, 32, 74]
    for token in (31, 32):
        without(row, token)
    assert [token for token in range(96) if is_left(row, token)] == [0, 74]
    assert is_left(row, 96)  # beyond what the mask knows
    assert is_left(None, 5)


def test_they_are_xgrammars_bits() -> None:
    xgrammar = pytest.importorskip("xgrammar")
    ids = np.array([1, 31, 33, 64])
    mask = torch.from_numpy(np.stack([row_of(ids, WORDS)]))
    logits = torch.zeros(1, VOCABULARY)
    xgrammar.apply_token_bitmask_inplace(logits, mask)
    assert torch.isfinite(logits[0]).nonzero()[:, 0].tolist() == ids.tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {},
        {"top_k": 3, "top_p": 0.9, "min_p": 0.02, "temperature": 0.7},
        {"seed": 5, "sampler": "philox"},
        {"presence_penalty": 0.5, "repetition_penalty": 1.2, "logit_bias": {"3": 5.0}},
    ],
)
def test_scores_are_those_of_logits_that_are_masked_before(logits: torch.Tensor, options: dict[str, object]) -> None:
    raw, processed = left_at(1), left_at(1)
    processed[:, 5] = False
    processed[np.arange(TOKENS), processed.argmax(axis=1)] = True
    sampling = Sampling.model_validate(options)
    before = logits.masked_fill(~torch.from_numpy(processed), -torch.inf)
    chosen = before.argmax(dim=1).tolist()
    expected = score_tokens([before], [1, 2], chosen, sampling, [0])
    # In parts of any size.
    found = score_tokens(logits.split(90), [1, 2], chosen, sampling, [0], masks_of(raw, processed))
    for name in COLUMNS:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)
    assert (found.margin == 0).all() or options.get("logit_bias")


def test_log_probabilities_know_the_raw_mask_alone(logits: torch.Tensor) -> None:
    raw, processed = left_at(1), left_at(2)
    chosen = raw.argmax(axis=1).tolist()
    before = logits.masked_fill(~torch.from_numpy(raw), -torch.inf)
    kept = logits.clone()
    expected = token_logprobs([before], chosen, 4)
    found = token_logprobs(logits.split(90), chosen, 4, masks=masks_of(raw, processed))
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    assert torch.equal(logits, kept)


def test_an_end_that_alone_is_left_stays_before_min_tokens(logits: torch.Tensor) -> None:
    """As vLLM does it under a grammar that has come to its end."""
    left = left_at(1)
    left[0] = left[1] = False
    left[0, 7] = left[1, [7, 8]] = True
    sampling = Sampling(min_tokens=10, temperature=0.0)
    scores = score_tokens([logits], [1], [7, 8] + [1] * (TOKENS - 2), sampling, [7], masks_of(left, left))
    assert scores.margin[0] == 0
    assert scores.margin[1] == 0  # the end is forbidden, since another token is left
    assert scores.best[1] == 8


def test_each_mask_is_there_once() -> None:
    one, other = row_of(np.array([1, 2]), WORDS), row_of(np.array([3]), WORDS)
    table = MaskTable()
    for raw, processed in ((None, None), (one, one), (one, other), (None, other)):
        table.add(raw, processed)
    masks = table.masks()
    assert masks is not None
    assert masks.rows.tolist() == [one.tolist(), other.tolist()]
    assert (masks.raw.tolist(), masks.processed.tolist()) == ([-1, 0, 0, -1], [-1, 0, 1, 1])


def test_no_masks() -> None:
    table = MaskTable()
    table.add(None, np.full(WORDS, -1, dtype=np.int32))
    assert table.masks() is None


def test_too_many_masks() -> None:
    table = MaskTable(most=2 * WORDS * 4)
    for token in (1, 2, 1, 2):
        row = row_of(np.array([token]), WORDS)
        table.add(row, row)
    row = row_of(np.array([3]), WORDS)
    with pytest.raises(TooManyMasks, match="more than 24 bytes of masks"):
        table.add(row, row)
