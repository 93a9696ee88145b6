"""One proof, one byte string: everything else is malformed, with the reason in the fixture's name."""

import base64
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toploc import MalformedProof, Proof, ToplocError, decode_proof
from toploc.proofs.field import PRIME, modulus_floor

FIXTURES = sorted((Path(__file__).parents[1] / "malformed").iterdir())
WELL_FORMED = (Path(__file__).parents[1] / "golden" / "well-formed.bin").read_bytes()


@st.composite
def valid_bytes(draw):
    topk = draw(st.integers(1, 140))
    words = draw(st.lists(st.integers(0, PRIME - 1), min_size=topk, max_size=topk))
    modulus = draw(st.integers(modulus_floor(topk), PRIME))
    return np.array([modulus, *words], ">u2").tobytes(), topk


def is_valid(data, topk):
    words = np.frombuffer(data, ">u2") if len(data) % 2 == 0 else []
    return (
        len(words) == topk + 1
        and modulus_floor(topk) <= words[0] <= PRIME
        and all(word < PRIME for word in words[1:].tolist())
    )


def test_well_formed():
    assert decode_proof(WELL_FORMED).data == WELL_FORMED
    assert decode_proof(decode_proof(WELL_FORMED).base64).data == WELL_FORMED


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_malformed(path):
    content = path.read_bytes()
    with pytest.raises(MalformedProof) as error:
        decode_proof(content.decode() if path.suffix == ".txt" else content)
    assert error.value.reason == path.name.split("-")[0]


@given(valid_bytes())
def test_round_trip(sample):
    data, topk = sample
    proof = decode_proof(data, topk)
    assert proof.data == data
    assert proof.topk == topk
    assert np.array([proof.modulus, *proof.coefficients], ">u2").tobytes() == data
    assert decode_proof(proof.base64, topk) == proof == pickle.loads(pickle.dumps(proof))
    assert len(proof.base64) == len(base64.b64encode(data))


@given(st.binary(max_size=40), st.integers(1, 12))
def test_any_bytes_are_a_proof_or_malformed(data, topk):
    if is_valid(data, topk):
        assert decode_proof(data, topk).data == data
    else:
        with pytest.raises(MalformedProof):
            decode_proof(data, topk)


@given(st.integers(0, 257), st.integers(1, 255))
def test_one_changed_byte(position, change):
    data = bytearray(WELL_FORMED)
    data[position] ^= change
    if is_valid(bytes(data), 128):
        assert decode_proof(bytes(data)) != decode_proof(WELL_FORMED)
    else:
        with pytest.raises(MalformedProof):
            decode_proof(bytes(data))


@given(st.text(max_size=20) | st.text("ABC/+=-_\n ", min_size=8, max_size=8), st.integers(1, 3))
def test_any_text_is_a_proof_or_malformed(text, topk):
    try:
        proof = decode_proof(text, topk)
    except MalformedProof:
        return
    assert proof.base64 == text


OTHER_TYPES = [None, 7, 1.5, [], {}, bytearray(258), memoryview(bytes(258))]


@pytest.mark.parametrize("value", OTHER_TYPES, ids=lambda value: type(value).__name__)
def test_other_types(value):
    with pytest.raises(MalformedProof) as error:
        decode_proof(value)
    assert error.value.reason == "type"


@pytest.mark.parametrize("topk", [0, -1, 65498, 2**40, 1.5, None])
def test_other_topk(topk):
    with pytest.raises(MalformedProof) as error:
        decode_proof(WELL_FORMED, topk)
    assert error.value.reason == "length"


def test_a_proof_cannot_be_made_of_anything_else():
    with pytest.raises(MalformedProof):
        Proof(bytes(258))
    assert issubclass(MalformedProof, ToplocError)
