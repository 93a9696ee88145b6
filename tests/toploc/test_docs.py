"""Vectors, worked examples and names of tests in docs/ are what the library and the tests have."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toploc import MalformedProof, Thresholds, decode_proof, encode_points, verify_points
from toploc.proofs.decoys import decoy_bound, decoy_positions
from toploc.proofs.field import PRIME, modulus_floor
from toploc.proofs.topk import top_k

DOCS = Path(__file__).parents[2] / "docs"
VECTORS = json.loads((DOCS / "proof-vectors.json").read_text("utf-8"))
FIGURES = ("mismatches", "exponent_mismatches", "mantissa_mean", "mantissa_median", "decoy_hits", "decoys")


def patterns(text):
    return np.frombuffer(bytes.fromhex(text), ">u2").astype(np.uint16)


@pytest.mark.parametrize("case", VECTORS["chunks"], ids=lambda case: case["name"])
def test_chunks(case):
    indices, values = top_k(patterns(case["activations"]), case["topk"])
    assert indices.tolist() == case["indices"]
    proof = decode_proof(case["base64"], case["topk"])
    assert proof.data.hex() == encode_points(indices, values).hex() == case["proof"]
    assert proof.modulus == case["modulus"]
    own = top_k(patterns(case["verifier"] or case["activations"]), case["topk"])
    secret = bytes.fromhex(case["secret"])
    decoys = decoy_positions(proof, (own[0] % proof.modulus).astype(np.uint16), secret)
    assert decoys[:4].tolist() == case["decoys_first"]
    paper = Thresholds.paper(case["dtype"])
    bounds = replace(paper.bounds[0], mismatches=min(38, case["topk"]))
    verdict = verify_points(
        proof,
        *own,
        dtype=case["dtype"],
        rows=case["rows"],
        thresholds=replace(paper, topk=case["topk"], bounds=(bounds,)),
        secret=secret,
    )
    assert verdict.passed
    assert {name: getattr(verdict, name) for name in FIGURES} == {name: case[name] for name in FIGURES}
    assert verdict.bounds.decoy_hits == case["decoy_bound"]


@pytest.mark.parametrize("case", VECTORS["points"], ids=lambda case: case["name"])
def test_points(case):
    data = encode_points(np.array(case["indices"]), np.array(case["patterns"], np.uint16))
    assert data.hex() == case["proof"]
    assert decode_proof(data, len(case["indices"])).modulus == case["modulus"]


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: case["proof"])
def test_malformed(case):
    with pytest.raises(MalformedProof) as error:
        decode_proof(bytes.fromhex(case["proof"]), case["topk"])
    assert error.value.reason == case["reason"]


def test_numbers_in_the_text():
    text = (DOCS / "proof-format.md").read_text("utf-8")
    assert f"{modulus_floor(128)} for k = 128" in text
    assert "`/9m+8oBA`" in text
    for dtype, mantissas in (("bfloat16 and 1, 2, 4, 8 exponents b =", 128), ("float16", 1024)):
        bounds = [decoy_bound(256, 2 * mantissas * exponents, 128, PRIME) for exponents in (1, 2, 4, 8)]
        assert f"{dtype} {', '.join(map(str, bounds))}" in text


def test_every_test_that_the_threat_model_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "security.md").read_text("utf-8")))
    files = (DOCS.parent / "tests").rglob("test_*.py")
    defined = {name for file in files for name in re.findall(r"^def (test_\w+)\(", file.read_text("utf-8"), re.M)}
    assert len(named) > 40
    assert named <= defined
