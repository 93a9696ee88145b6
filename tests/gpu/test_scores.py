"""Scores and points that a GPU computes are those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toploc.proofs.chunks import find_points, split, state_points
from toploc.tokens.noise import SAMPLERS
from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import COLUMNS
from toploc.tokens.scoring import score_tokens

pytestmark = pytest.mark.gpu


def logits_of(kind: str, rows: int, vocabulary: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, vocabulary, generator=generator)
    match kind:
        case "peaked":
            logits[:, 7] += 30
        case "broad":
            logits /= 10
        case "forbidden":
            logits[:, ::2] = -torch.inf
        case "one":
            logits[:, 1:] = -torch.inf
    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"temperature": 0.6}, {"min_tokens": 40}])
@pytest.mark.parametrize("kind", ["normal", "peaked", "broad", "forbidden", "one"])
def test_scores_equal_the_cpus(kind: str, options: dict[str, float], dtype: torch.dtype) -> None:
    rows, vocabulary = 70, 5003
    # As of a model whose vocabulary is padded: rows are further apart than they are long.
    logits = logits_of(kind, rows, vocabulary + 5).to(dtype)[:, :vocabulary]
    chosen = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(2)).tolist()
    chosen[:3] = [0, 1, 7]
    sampling = Sampling(**options)
    expected = score_tokens(logits.split(32), [1, 2], chosen, sampling, [3])
    on_device = logits_of(kind, rows, vocabulary + 5).to(dtype).cuda()[:, :vocabulary]
    kept = on_device.clone()
    found = score_tokens(on_device.split(32), [1, 2], chosen, sampling, [3])
    assert torch.equal(on_device, kept)
    assert found.replay is None
    for name in COLUMNS[:-1]:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("sampler", ["philox", "murmur3"])
def test_noise_equals_the_cpus(sampler: str) -> None:
    for seed in (0, 3, -5, 2**40 + 1, 2**63 - 1):
        noise = SAMPLERS[sampler](seed, 77)
        expected = noise.rows(5, 9, 3001, torch.device("cpu"))
        found = noise.rows(5, 9, 3001, torch.device("cuda"))
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rows", [1, 31, 32, 70, 512])
def test_points_equal_the_cpus(rows: int, dtype: torch.dtype) -> None:
    states = torch.randn(rows, 1024, generator=torch.Generator().manual_seed(rows)).to(dtype)
    expected, found = find_points(split(states, 32), 128), state_points(states.cuda(), 128)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.patterns, expected.patterns)
    assert found.rows == expected.rows
