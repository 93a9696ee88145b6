"""The error by channel, against the formula in numpy and at its ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from toploc import Thresholds, build_proofs_bytes, verify_activations
from toploc.pooling.spread import Spread
from toploc.proofs.channels import MOST, channel_error, differences
from toploc.thresholds.noise import ChannelNoise
from toploc.thresholds.pooled import PooledBounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE = ChannelNoise(hidden_size=8, usual=0.5, channels={2: 0.03, 7: 16.0})
INFINITY, NOTHING = 0x7F80, 0x7FC0  # in bfloat16


def patterns(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def numbers(found: NDArray[np.uint16]) -> NDArray[np.float64]:
    return (found.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def test_the_formula() -> None:
    random = np.random.default_rng(1)
    indices = random.permutation(32 * 8)[:128]
    own = patterns(random.uniform(1.2, 1.4, 128).astype(np.float32) * random.choice([-1, 1], 128))
    claimed = (own + random.integers(-20, 20, 128)).astype(np.uint16)
    noise = np.array([0.5, 0.5, 0.03, 0.5, 0.5, 0.5, 0.5, 16.0])[indices % 8]
    assert channel_error(claimed, own, indices, NOISE, "bfloat16") == pytest.approx(
        np.log1p(4 * np.abs(numbers(claimed) - numbers(own)) / noise).mean()
    )


def test_half_precision() -> None:
    own, claimed = (np.array([value] * 4, np.float16).view(np.uint16) for value in (1.0, 1.25))
    found = channel_error(claimed, own, np.array([0, 1, 3, 4]), NOISE, "float16")
    assert found == pytest.approx(np.log1p(4 * 0.25 / 0.5))


def test_no_point_counts_for_more_than_half_an_octave() -> None:
    indices, own = np.arange(4), patterns(np.array([1, -1, 1.5, 1e30], np.float32))
    assert channel_error(own, own, indices, NOISE, "bfloat16") == 0
    largest = np.full(4, INFINITY - 1, np.uint16)
    assert channel_error(largest, largest, indices, NOISE, "bfloat16") == 0
    half = differences(own + np.uint16(64), own, "bfloat16")
    assert half.tolist() == [0.5, 0.5, 0.5, half[3]]
    for far in (INFINITY, NOTHING, 0x7F7F, 0, 0x8000 | NOTHING):
        assert differences(np.full(4, far, np.uint16), own, "bfloat16").tolist() == half.tolist()


def test_what_is_no_number_has_a_figure() -> None:
    """The chunk fails by `non_finite`, and its figures are numbers in a report."""
    own = np.array([INFINITY, NOTHING], np.uint16)
    for claimed in (own, own[::-1].copy(), np.zeros(2, np.uint16)):
        found = channel_error(claimed, own, np.arange(2), NOISE, "bfloat16")
        assert found == pytest.approx(np.log1p(4 * MOST))


def test_it_is_a_figure_of_chunks_where_the_noise_is_known() -> None:
    states = torch.randn(40, 128, generator=torch.Generator().manual_seed(1)).bfloat16()
    proofs = build_proofs_bytes(states, 32, 128, skip_prefill=True)
    pooled = PooledBounds(
        honest=Spread(0.5, 0.1, 0.1), provenance="a test", noise=ChannelNoise(hidden_size=128, usual=0.01)
    )
    known = replace(Thresholds.paper(), pooled=pooled)
    other = (states.float() * 1.01).bfloat16()
    assert [chunk.channel_error for chunk in verify_activations(proofs, states, thresholds=known).chunks] == [0, 0]
    errors = [chunk.channel_error for chunk in verify_activations(proofs, other, thresholds=known).chunks]
    assert all(error is not None and 0 < error < 5 for error in errors)
    chunks = verify_activations(proofs, other, thresholds=replace(known, pooled=None)).chunks
    assert [chunk.channel_error for chunk in chunks] == [None, None]
