"""Proofs made without the activations: every one is refused, and no honest one is."""

from math import comb

import numpy as np
import pytest
import torch

from toploc import (
    InvalidActivations,
    MalformedProof,
    Proof,
    ProofBuilder,
    Thresholds,
    decode_proof,
    encode_points,
    verify_activations,
    verify_points,
)
from toploc.proofs.decoys import DECOYS, decoy_bound
from toploc.proofs.field import PRIME, modulus_floor
from toploc.proofs.topk import top_k

PAPER = Thresholds.paper("bfloat16")


def hidden_states(kind, rows, hidden, random):
    """float32[rows, hidden]: distributions of last hidden states, from well-behaved to dominated by outliers."""
    values = random.standard_normal((rows, hidden), np.float32)
    if kind == "laplace":
        values = np.copysign(random.standard_exponential((rows, hidden), np.float32), values)
    elif kind == "heavy":
        values /= np.sqrt(random.random((rows, hidden), np.float32) + np.float32(0.02))
    elif kind == "scaled":  # a norm's weights: channels of different size, some large
        values *= np.exp(np.random.default_rng(hidden).normal(0, 0.5, hidden)).astype(np.float32)
    elif kind == "outliers":
        values[:, np.random.default_rng(hidden).permutation(hidden)[:6]] *= 20
    return values


def own_points(values):
    patterns = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    return top_k(patterns.reshape(-1), 128)


def judge(proof, points, rows=32):
    return verify_points(proof, *points, dtype="bfloat16", rows=rows, thresholds=PAPER, secret=b"auditor")


def constant(value):
    return Proof(np.array([PRIME, value, *[0] * 127], ">u2").tobytes())


def likely_value(kind, rows, hidden):
    """The pattern that is nearest to most of the top-k of other answers: what a forger can know."""
    random = np.random.default_rng(999)
    magnitudes = [own_points(hidden_states(kind, rows, hidden, random))[1] & 0x7FFF for _ in range(4)]
    return int(np.median(np.concatenate(magnitudes)))


SHAPES = {(32, 256): 600, (32, 1024): 700, (32, 4096): 250, (32, 8192): 100, (1, 4096): 150, (7, 2048): 200}
KINDS = ("gaussian", "laplace", "heavy", "scaled", "outliers")


@pytest.mark.parametrize("kind", KINDS)
def test_constant_polynomial_and_honest_noise(kind):
    """Attack 1, over 2,000 chunks each: the constant is refused in all; no honest prover is, whose verifier's
    activations differ by 1 % of noise; and honest decoy hits come at the rate that the bound is derived from.
    """
    random = np.random.default_rng(KINDS.index(kind))
    hits = least = most = 0.0
    for shape, count in SHAPES.items():
        forged = constant(likely_value(kind, *shape))
        for _ in range(count):
            values = hidden_states(kind, *shape, random)
            noise = 1 + np.float32(0.01 * 12**0.5) * (random.random(shape, np.float32) - np.float32(0.5))
            points = own_points(values * noise)
            proof = Proof(encode_points(*own_points(values)))

            honest = judge(proof, points, shape[0])
            assert honest.passed, honest
            verdict = judge(forged, points, shape[0])
            assert "decoy_hits" in verdict.reasons, verdict
            assert verdict.decoy_hits == verdict.decoys == DECOYS

            hits += honest.decoy_hits
            random_rate = 256 * len(set((points[1] & 0x7FFF) >> 7)) / PRIME
            least += DECOYS * random_rate
            most += DECOYS * (random_rate + 128 / (proof.modulus - 128))
    assert least - 5 * least**0.5 < hits < most + 5 * most**0.5


def test_signs_alone_refuse_the_constant_polynomial():
    """Attack 1: without the decoys, about half of the signs are wrong, and the original's figures would pass."""
    random = np.random.default_rng(2)
    forged = constant(likely_value("gaussian", 32, 8192))
    passes_original = 0
    for _ in range(100):
        verdict = judge(forged, own_points(hidden_states("gaussian", 32, 8192, random)))
        assert "mismatches" in verdict.reasons
        passes_original += (
            verdict.exponent_mismatches <= 38 and verdict.mantissa_mean <= 10 and verdict.mantissa_median <= 8
        )
    assert passes_original > 50


def test_negated_activations():
    """The original compares no signs."""
    values = hidden_states("gaussian", 32, 4096, np.random.default_rng(3))
    verdict = judge(Proof(encode_points(*own_points(values))), own_points(-values))
    assert (verdict.exponent_mismatches, verdict.mismatches) == (0, 128)
    assert verdict.reasons == ("mismatches",)


def test_likely_values_at_guessed_positions():
    """A polynomial through plausible values at positions that are not the verifier's."""
    random = np.random.default_rng(4)
    _, patterns = own_points(hidden_states("gaussian", 32, 4096, random))
    for _ in range(200):
        forged = Proof(encode_points(np.sort(random.choice(131072, 128, replace=False)), patterns))
        verdict = judge(forged, own_points(hidden_states("gaussian", 32, 4096, random)))
        assert "mismatches" in verdict.reasons


def test_polynomials_of_low_degree():
    """Only a constant takes one value often: a polynomial of degree d takes each at most d times."""
    random = np.random.default_rng(5)
    points = own_points(hidden_states("gaussian", 32, 8192, np.random.default_rng(5)))
    for degree in (1, 2, 3, 16, 127):
        coefficients = np.r_[random.integers(1, PRIME, degree + 1), np.zeros(127 - degree, np.int64)]
        forged = Proof(np.array([PRIME, *coefficients], ">u2").tobytes())
        assert "mismatches" in judge(forged, points).reasons


@pytest.mark.parametrize("modulus", [*range(1, 65), 129, 1024, 57368])
def test_modulus_of_the_forgers_choice(modulus):
    """Attack 2: residues of few values need no constant."""
    with pytest.raises(MalformedProof) as error:
        decode_proof(np.array([modulus, *[0x4080] * 128], ">u2").tobytes())
    assert error.value.reason == "modulus"


def test_modulus_at_the_floor_gains_nothing():
    """Attack 2: within the range that is left, the constant polynomial is as visible as ever."""
    points = own_points(hidden_states("gaussian", 32, 8192, np.random.default_rng(6)))
    data = bytearray(constant(0x4080).data)
    data[:2] = modulus_floor(128).to_bytes(2, "big")
    verdict = judge(Proof(bytes(data)), points)
    assert {"mismatches", "decoy_hits"} <= set(verdict.reasons)


@pytest.mark.parametrize("hidden", [256, 1024, 4096])
@pytest.mark.parametrize("rows", [32, 4, 1])
def test_replayed_proofs(rows, hidden):
    """Attacks 4 and 6: proofs of other answers fail, those of one-row chunks too."""
    random = np.random.default_rng(rows * hidden)
    answers = [own_points(hidden_states("gaussian", rows, hidden, random)) for _ in range(30)]
    proofs = [Proof(encode_points(*points)) for points in answers]
    for i, proof in enumerate(proofs):
        for j, points in enumerate(answers):
            assert judge(proof, points, rows).passed == (i == j)


def prove(values):
    builder = ProofBuilder()
    return builder.append(values) + builder.finish()


def test_counts_and_order():
    """Attack 5: fewer, more, swapped and repeated proofs."""
    values = hidden_states("gaussian", 70, 1024, np.random.default_rng(7))
    values = torch.from_numpy(values).bfloat16()
    proofs = prove(values)
    assert verify_activations(proofs, values).passed
    for wrong in ([], proofs[:2], [*proofs, proofs[0]], [b""] * 100_000):
        with pytest.raises(MalformedProof) as error:
            verify_activations(wrong, values)
        assert error.value.reason == "count"
    for order, failing in (((1, 0, 2), [0, 1]), ((0, 0, 2), [1]), ((0, 1, 1), [2])):
        verdict = verify_activations([proofs[i] for i in order], values)
        assert not verdict.passed
        assert [i for i, chunk in enumerate(verdict.chunks) if not chunk.passed] == failing


def test_no_tokens_prove_nothing():
    """Attack 5: no proofs for no tokens is no acceptance."""
    assert not verify_activations([], torch.empty(0, 1024, dtype=torch.bfloat16)).passed


def test_chunk_of_fewer_elements_than_points():
    """Attack 6: a model narrower than 128 cannot prove a one-token chunk."""
    with pytest.raises(InvalidActivations):
        prove(torch.ones(1, 127, dtype=torch.bfloat16))


def test_forger_cannot_pass_both_bounds():
    """The number of decoys: for every share f of plausible values, P(>= 90 of 128 points) P(<= bound hits)."""

    def at_most(count, share, bound):
        return sum(comb(count, h) * share**h * (1 - share) ** (count - h) for h in range(bound + 1))

    shares = np.arange(0.01, 1, 0.01)
    for exponents, mantissas, limit in ((1, 128, 1e-13), (8, 128, 1e-13), (4, 1024, 1e-13), (8, 1024, 1e-7)):
        bound = decoy_bound(DECOYS, 2 * mantissas * exponents, 128, PRIME)
        for share in shares:
            points = at_most(128, 1 - share, 38)
            assert points * at_most(DECOYS, share, bound) < limit
