"""The noise of vLLM's samplers, held against what they choose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from toploc.tokens.noise import SAMPLERS, noise_of
from toploc.tokens.sampling import Sampling
from toploc.tokens.scoring import score_tokens

CPU = torch.device("cpu")
# What vLLM's own kernels chose among equal logits, run by Triton's interpreter: `gumbel_sample` of 0.32.0 (murmur3) and
# of 0.26.0 (philox).
VECTORS = json.loads(Path(__file__).with_name("noise_vectors.json").read_text("utf-8"))


@pytest.mark.parametrize("name", ["murmur3", "philox"])
def test_the_second_runners_samplers(name: str) -> None:
    vectors = VECTORS[name]
    assert len(vectors["tokens"]) == 32
    for seed, position, token in zip(vectors["seeds"], vectors["positions"], vectors["tokens"], strict=True):
        rows = SAMPLERS[name](seed, position - 2).rows(2, 1, vectors["vocabulary"], CPU)
        assert rows.argmax() == token, (seed, position)


def test_no_noise_without_a_seed_that_an_engine_takes_or_a_sampler_that_is_known() -> None:
    for sampler, seed in (
        ("murmur3", None),
        (None, 3),
        ("another", 3),
        ("murmur3", 2**64),
        ("splitmix64", -(2**64) - 1),
    ):
        assert noise_of(sampler, seed, 5) is None


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.4}, {"top_k": 3}, {"temperature": 1.5, "top_p": 0.8}, {"min_p": 0.1}]
)
def test_margins_under_noise(options: dict[str, float]) -> None:
    """0 for the tokens that the noise chooses from logits that are nearly the verifier's; not for others."""
    torch.manual_seed(0)
    logits = torch.randn(200, 300) * 3
    sampling = Sampling(seed=9, sampler="murmur3", **options)
    noise = noise_of("murmur3", 9, 3)
    assert noise is not None
    noised = left_by(sampling, logits + 0.02 * torch.randn_like(logits)) + noise.rows(0, 200, 300, CPU)
    chosen = noised.argmax(dim=-1).tolist()
    own = score_tokens(logits.split(64), [1, 2, 3, 4], chosen, sampling, [])
    assert own.replay is not None
    assert own.replay.max() < 0.25
    others = noised.topk(2, dim=-1).indices[:, 1].tolist()
    theirs = score_tokens(logits.split(64), [1, 2, 3, 4], others, sampling, [])
    assert theirs.replay is not None
    # Where sampling leaves two tokens or one, the second may be the server's own choice.
    assert (theirs.replay > 0.25).mean() > (0.2 if "top_k" in options else 0.4)


def left_by(sampling: Sampling, logits: torch.Tensor) -> torch.Tensor:
    """Logits divided by the temperature, without those that sampling leaves out."""
    scaled = logits / sampling.divisor
    p = scaled.softmax(dim=-1)
    out = p < sampling.min_p * p.amax(dim=-1, keepdim=True)
    if sampling.top_k:
        out |= scaled < scaled.topk(sampling.top_k).values[:, -1:]
    better = torch.stack([(row * (row > row[:, None])).sum(dim=-1) for row in p])
    out |= better >= sampling.top_p
    return scaled.masked_fill(out, -torch.inf)
