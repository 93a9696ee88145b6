"""The verdict: its figures, bounds, reasons and refusals."""

from dataclasses import replace
from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toploc import (
    InvalidActivations,
    InvalidThresholds,
    MalformedProof,
    Proof,
    ProofBuilder,
    Thresholds,
    decode_proof,
    encode_points,
    verify_activations,
    verify_chunks,
    verify_points,
)
from toploc.proofs.chunks import find_points, split
from toploc.proofs.decoys import DECOYS, FALSE_ALARM, decoy_bound, decoy_positions
from toploc.proofs.field import PRIME, evaluate
from toploc.proofs.verdict import NOTHING_EQUAL
from toploc.thresholds.bounds import Bounds

PAPER = Thresholds.paper()


def points(seed=0, elements=8192):
    """128 points of plausible bfloat16 values, both signs, exponents 0x7f to 0x81."""
    random = np.random.default_rng(seed)
    indices = np.sort(random.choice(elements, 128, replace=False)).astype(np.int32)
    patterns = random.integers(0x3F80, 0x4100, 128) | random.integers(0, 2, 128) << 15
    return indices, patterns.astype(np.uint16)


def judge(proof, indices, patterns, **options):
    return verify_points(proof, indices, patterns, **{"dtype": "bfloat16", "rows": 32, "thresholds": PAPER, **options})


@pytest.fixture
def sample():
    indices, patterns = points()
    return Proof(encode_points(indices, patterns)), indices, patterns


def test_identical(sample):
    verdict = judge(*sample)
    assert verdict.passed
    assert verdict.reasons == ()
    assert (verdict.mismatches, verdict.exponent_mismatches) == (0, 0)
    assert (verdict.mantissa_mean, verdict.mantissa_median) == (0, 0)
    assert verdict.decoys == DECOYS
    assert verdict.bounds == replace(PAPER.bounds[0], decoy_hits=decoy_bound(DECOYS, 3 * 256, 128, PRIME))


@pytest.mark.parametrize(("count", "reasons"), [(38, ()), (39, ("mismatches",))])
@pytest.mark.parametrize(("bit", "exponents"), [(0x8000, 0), (0x0200, 1)], ids=["sign", "exponent"])
def test_mismatches(sample, count, reasons, bit, exponents):
    proof, indices, patterns = sample
    patterns[:count] ^= bit
    verdict = judge(proof, indices, patterns)
    assert (verdict.mismatches, verdict.exponent_mismatches) == (count, count * exponents)
    assert verdict.reasons == reasons


def test_mantissa_figures(sample):
    proof, indices, _ = sample
    patterns = np.full(128, 0x4010, np.uint16)
    proof = Proof(encode_points(indices, patterns))
    patterns[:64] += 30  # the two middle values are 0 and 30: the upper counts
    verdict = judge(proof, indices, patterns)
    assert (verdict.mantissa_mean, verdict.mantissa_median) == (15, 30)
    assert {"mantissa_mean", "mantissa_median"} < set(verdict.reasons)


def test_nothing_equal(sample):
    proof, indices, patterns = sample
    verdict = judge(proof, indices, patterns ^ 0x0200)
    assert verdict.mantissa_mean == verdict.mantissa_median == NOTHING_EQUAL
    assert set(verdict.reasons) == {"mismatches", "mantissa_mean", "mantissa_median"}


@pytest.mark.parametrize("pattern", [0x7F80, 0xFF80, 0x7FC0, 0xFFC0, 0xFFD9, 0xFFFF])
def test_non_finite_activations_are_no_evidence(sample, pattern):
    """Infinity would compare as equal, and a NaN from 0xffd9 up is not even in the field."""
    _, indices, patterns = sample
    patterns[5] = pattern
    verdict = judge(Proof(encode_points(indices, patterns)), indices, patterns)
    assert verdict.reasons == ("non_finite",)


def test_float16():
    indices, _ = points()
    patterns = np.random.default_rng(1).integers(0x4000, 0x4800, 128).astype(np.uint16)
    proof = Proof(encode_points(indices, patterns))
    patterns[0] ^= 0x0400  # an exponent's lowest bit in float16, a mantissa's in bfloat16
    verdict = judge(proof, indices, patterns, dtype="float16", thresholds=Thresholds.paper("float16"))
    assert (verdict.mismatches, verdict.passed) == (1, True)


def test_thresholds_of_another_dtype_or_topk(sample):
    with pytest.raises(InvalidThresholds):
        judge(*sample, dtype="float16")
    with pytest.raises(InvalidThresholds):
        judge(*sample, thresholds=replace(PAPER, topk=64))


def test_bounds_by_rows(sample):
    proof, indices, patterns = sample
    patterns[:3] ^= 0x8000
    bounds = (Bounds(1, 2, 10, 8), Bounds(4, 3, 10, 8, decoy_hits=0))
    thresholds = replace(PAPER, bounds=bounds)
    assert judge(proof, indices, patterns, rows=3, thresholds=thresholds).reasons == ("mismatches",)
    calibrated = judge(proof, indices, patterns, rows=4, thresholds=thresholds)
    assert calibrated.bounds is bounds[1]
    assert calibrated.reasons == (("decoy_hits",) if calibrated.decoy_hits else ())


def test_points_of_another_size(sample):
    proof, indices, patterns = sample
    with pytest.raises(InvalidActivations):
        judge(proof, indices[:-1], patterns[:-1])


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=40), st.integers(0, 2**32))
def test_decoys_lie_outside_the_points(secret, seed):
    indices, patterns = points(seed, 2**20)
    proof = Proof(encode_points(indices, patterns))
    residues = (indices % proof.modulus).astype(np.uint16)
    decoys = decoy_positions(proof, residues, secret)
    assert len(set(decoys.tolist())) == DECOYS
    assert not set(decoys.tolist()) & set(residues.tolist())
    assert decoys.max() < proof.modulus
    assert (decoys == decoy_positions(proof, residues, secret)).all()
    assert (decoys != decoy_positions(proof, residues, secret + b"\0")).any()


def test_decoys_of_a_modulus_with_little_room():
    indices = np.arange(500)
    proof = Proof(np.array([512, *range(500)], ">u2").tobytes())
    decoys = decoy_positions(proof, indices.astype(np.uint16))
    assert sorted(decoys.tolist()) == list(range(500, 512))


@pytest.mark.parametrize("patterns", [256, 512, 2048, 16384])
def test_decoy_bound_is_the_smallest(patterns):
    chance = Fraction(patterns, PRIME) + Fraction(128, PRIME - 128)

    def exceeds(bound):
        return sum(comb(256, h) * chance**h * (1 - chance) ** (256 - h) for h in range(bound + 1, 257))

    bound = decoy_bound(256, patterns, 128, PRIME)
    assert exceeds(bound) <= FALSE_ALARM < exceeds(bound - 1)


def test_decoy_bound_without_power():
    assert decoy_bound(256, PRIME, 128, PRIME) == 256
    assert decoy_bound(0, 256, 128, PRIME) == 0


def test_hit_rate_counts_patterns_below_the_prime(sample):
    """The highest exponents' negative patterns are not in the field, and cannot be hit."""
    proof, indices, _ = sample
    own = np.full(128, 0x7F00, np.uint16)
    verdict = judge(proof, indices, own)
    values = evaluate(proof.coefficients, decoy_positions(proof, indices.astype(np.uint16)))
    assert verdict.decoy_hits == np.count_nonzero((values & 0x7FFF) >> 7 == 0xFE)
    assert verdict.bounds.decoy_hits == decoy_bound(DECOYS, 256, 128, PRIME)


def activations(rows, hidden=512, dtype=torch.bfloat16):
    return torch.randn(rows, hidden, generator=torch.Generator().manual_seed(rows)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 70])
def test_activations(rows, dtype):
    values = activations(rows, dtype=dtype)
    builder = ProofBuilder()
    proofs = builder.append(values) + builder.finish()
    verdict = verify_activations(proofs, values, secret=b"auditor")
    assert verdict.passed
    assert verdict.rounded == builder.rounded == (dtype == torch.float32)
    assert verdict.thresholds.dtype == ("float16" if dtype == torch.float16 else "bfloat16")
    assert verdict == verify_activations([decode_proof(proof) for proof in proofs], list(values), secret=b"auditor")
    own = find_points(split(values, 32), 128)
    batch = verify_chunks(
        [decode_proof(proof) for proof in proofs],
        own,
        dtype=verdict.thresholds.dtype,
        thresholds=verdict.thresholds,
        secret=b"auditor",
    )
    assert batch.chunks == verdict.chunks
    with pytest.raises(MalformedProof):
        verify_chunks([], own, dtype="bfloat16", thresholds=PAPER)


def test_one_bad_chunk_fails_the_answer():
    values = activations(96)
    builder = ProofBuilder()
    proofs = builder.append(values)
    values[40:60] = activations(60)[40:]
    verdict = verify_activations(proofs, values)
    assert [chunk.passed for chunk in verdict.chunks] == [True, False, True]
    assert not verdict.passed


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(torch.zeros(32, 512, dtype=torch.float64), id="float64"),
        pytest.param(torch.zeros(32, 512, dtype=torch.int16), id="integer"),
        pytest.param(torch.zeros(512, dtype=torch.bfloat16), id="1-d"),
        pytest.param(torch.zeros(2, 32, 512, dtype=torch.bfloat16), id="3-d"),
        pytest.param(torch.zeros(1, 0, dtype=torch.bfloat16), id="no-width"),
        pytest.param(torch.zeros(1, 127, dtype=torch.bfloat16), id="narrow"),
        pytest.param(torch.zeros(1, 512, dtype=torch.bfloat16, device="meta"), id="meta"),
        pytest.param([[0.0] * 512], id="list-of-lists"),
        pytest.param([torch.zeros(512), torch.zeros(512, dtype=torch.float16)], id="mixed"),
    ],
)
def test_activations_that_cannot_be_proven(values, sample):
    proof = sample[0]
    with pytest.raises((InvalidActivations, MalformedProof)):
        verify_activations([proof], values)


def test_views_are_read_as_they_look():
    values = activations(64, 300)
    proofs = ProofBuilder().append(values.contiguous())
    for view in (values.t().contiguous().t(), torch.cat([values, values], 1)[:, :300]):
        assert ProofBuilder().append(view) == proofs
        assert verify_activations(proofs, view).chunks == verify_activations(proofs, values).chunks


def test_rows_are_counted_in_lists_of_matrices():
    values = activations(7)
    assert find_points(split([values[:5], *values[5:]], 32), 128).rows == (7,)
    assert find_points(split([values[:5], *values[5:]], 32, skip_prefill=False), 128).rows == (5, 2)
