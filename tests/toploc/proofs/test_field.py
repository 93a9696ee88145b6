"""The arithmetic, against plain integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toploc import InvalidActivations, decode_proof, encode_chunks, encode_points
from toploc.proofs.field import INVERSES, PRIME, _reduce, evaluate, find_modulus, interpolate, modulus_floor


@st.composite
def points(draw, largest=2**31 - 1):
    indices = draw(st.lists(st.integers(0, largest), min_size=1, max_size=150, unique=True))
    patterns = draw(st.lists(st.integers(0, 0xFFFF), min_size=len(indices), max_size=len(indices)))
    return np.array(indices, np.int64), np.array(patterns, np.uint16)


def horner(coefficients, x):
    value = 0
    for coefficient in reversed(coefficients.tolist()):
        value = (value * x + coefficient) % PRIME
    return value


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**32, 2**39, 2**43, 2**50])
def test_reduce_is_exact_around_multiples(size):
    quotients = {size // PRIME + offset for offset in range(3)}
    for value in {q * PRIME + r for q in quotients for r in (0, 1, 2, PRIME - 2, PRIME - 1)}:
        assert _reduce(float(value)) == value % PRIME


def test_inverses():
    values = np.arange(1, PRIME, dtype=np.int64)
    assert (values * INVERSES[1:].astype(np.int64) % PRIME == 1).all()


@settings(deadline=None)
@given(points(largest=PRIME - 1))
def test_interpolation_and_evaluation_are_inverse(sample):
    residues, patterns = sample[0].astype(np.uint16), sample[1]
    coefficients = interpolate(residues, patterns, INVERSES)
    assert (coefficients < PRIME).all()
    assert evaluate(coefficients, residues).tolist() == (patterns % PRIME).tolist()
    assert (interpolate(residues, evaluate(coefficients, residues), INVERSES) == coefficients).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, PRIME - 1), min_size=1, max_size=80), st.lists(st.integers(0, PRIME - 1), max_size=20))
def test_evaluation_agrees_with_integers(coefficients, xs):
    coefficients = np.array(coefficients, np.uint16)
    values = evaluate(coefficients, np.array(xs, np.uint16))
    assert values.tolist() == [horner(coefficients, x) for x in xs]


@settings(deadline=None)
@given(points(), st.randoms(use_true_random=False))
def test_order_of_points_does_not_matter(sample, random):
    order = list(range(len(sample[0])))
    random.shuffle(order)
    assert encode_points(*sample) == encode_points(sample[0][order], sample[1][order])


@settings(deadline=None)
@given(points())
def test_a_proof_holds_its_points_under_the_largest_modulus(sample):
    indices, patterns = sample
    proof = decode_proof(encode_points(indices, patterns), len(indices))
    distinct = [m for m in range(PRIME, proof.modulus - 1, -1) if len(set((indices % m).tolist())) == len(indices)]
    assert distinct == [proof.modulus]
    claimed = evaluate(proof.coefficients, (indices % proof.modulus).astype(np.uint16))
    assert claimed.tolist() == (patterns % PRIME).tolist()


@pytest.mark.parametrize("topk", [32, 512])
def test_other_sizes(topk):
    random = np.random.default_rng(topk)
    indices = random.choice(2**20, (3, topk), replace=False)
    patterns = random.integers(0, PRIME, (3, topk)).astype(np.uint16)
    for row, data in enumerate(encode_chunks(indices, patterns)):
        proof = decode_proof(data, topk)
        residues = (indices[row] % proof.modulus).astype(np.uint16)
        assert (evaluate(proof.coefficients, residues) == patterns[row]).all()


def test_floor():
    assert modulus_floor(128) == 65497 - 128 * 127 // 2 == 57369
    assert modulus_floor(1) == PRIME
    assert modulus_floor(1000) == 1000
    # Two divisors of one difference need an element number of 516,330 or more: checked for every difference.
    divisors = np.zeros(516_330, np.int8)
    for modulus in range(57_370, PRIME + 1):
        divisors[modulus::modulus] += 1
    assert divisors.max() == 1


def test_modulus_gives_up_at_the_floor():
    indices = np.array([0, PRIME, 2 * PRIME], np.int64)
    assert find_modulus(indices, PRIME) == 0
    assert find_modulus(indices, PRIME - 3) == PRIME - 1


@pytest.mark.parametrize(
    ("indices", "patterns"),
    [
        pytest.param(np.array([5, 5]), np.zeros(2, np.uint16), id="repeated"),
        pytest.param(np.array([-1, 5]), np.zeros(2, np.uint16), id="negative"),
        pytest.param(np.array([1.0, 5.0]), np.zeros(2, np.uint16), id="float-index"),
        pytest.param(np.array([1, 5]), np.zeros(2, np.float32), id="float-pattern"),
        pytest.param(np.array([1, 5]), np.zeros(3, np.uint16), id="lengths"),
        pytest.param(np.zeros(0, np.int32), np.zeros(0, np.uint16), id="empty"),
    ],
)
def test_points_that_cannot_be_encoded(indices, patterns):
    with pytest.raises(InvalidActivations):
        encode_points(indices, patterns)
