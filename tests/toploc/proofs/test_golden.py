"""Agreement with the original library, byte for byte and figure for figure."""

import numpy as np
import pytest
import torch

from toploc import MalformedProof, build_proofs_bytes, decode_proof, encode_points, verify_proofs_bytes
from toploc.errors import InvalidActivations
from toploc.poly import ProofPoly
from toploc.proofs.field import evaluate
from toploc.proofs.verdict import MANTISSA_BITS, compare

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}

REFUSED = {
    "g_32x64_bf16/wellformed_m1_const3.25": "modulus",
    "g_32x64_bf16/wellformed_m65535": "modulus",
    "g_32x64_bf16/wellformed_m64": "modulus",
    "g_32x64_bf16/wellformed_m129": "modulus",
    "g_32x64_bf16/wellformed_1coef": "length",
    "g_32x64_bf16/wellformed_127coef": "length",
    "g_32x64_bf16/wellformed_129coef_zero": "length",
    "g_32x64_bf16/wellformed_200coef_zero": "length",
    "g_32x64_bf16/wellformed_c0_plus_p": "coefficient",
    "g_32x64_bf16/wellformed_odd259": "length",
    "g_32x64_bf16/fewer_proofs_0": "count",
    "g_70x256_bf16/fewer_proofs_1of3": "count",
    "g_70x256_bf16/batch16_against_32": "count",
    "g_70x256_bf16/k64_against_k128_proofs": "length",
    "g_70x256_bf16/k200_against_k128_proofs": "length",
}
"""What the original computes figures for and no honest prover can have sent."""


def arguments(case):
    return case["decode_batching_size"], case["topk"], case["skip_prefill"]


def flat_chunks(activations, case):
    items = [item.reshape(-1) for item in activations]
    starts = list(range(0 if case["skip_prefill"] else 1, len(items), case["decode_batching_size"]))
    chunks = [items[start : start + case["decode_batching_size"]] for start in starts]
    if not case["skip_prefill"]:
        chunks.insert(0, items[:1])
    return [torch.cat(chunk).view(torch.int16).numpy().view(np.uint16) for chunk in chunks]


def test_build(golden):
    exact = given = 0
    for name, case in golden.build.items():
        activations = golden.activations(case)
        if case["reference_error"]:
            with pytest.raises(InvalidActivations):
                build_proofs_bytes(activations, *arguments(case))
            continue
        proofs = build_proofs_bytes(activations, *arguments(case))
        assert len(proofs) == case["n_chunks"]
        for number, (proof, expected) in enumerate(zip(proofs, case["proofs"], strict=True)):
            if expected["byte_exact"]:
                assert proof.hex() == expected["hex"], (name, number)
                exact += 1
            indices = golden.arrays.get(f"{name}__topk{number}")
            if indices is not None:
                chunk = flat_chunks(activations, case)[number]
                assert encode_points(indices, chunk[indices]).hex() == expected["hex"], (name, number)
                given += 1
    assert exact >= 60
    assert given >= 90


def test_poly(golden):
    for case in golden.poly:
        if "error" in case:
            with pytest.raises(InvalidActivations):
                ProofPoly.from_points(case["x"], case["y"])
            continue
        poly = ProofPoly.from_points(case["x"], case["y"])
        assert poly.to_bytes().hex() == case["hex"], case["name"]
        assert [poly(x) for x in case["x"]] == case["evaluations"], case["name"]


def test_verify(golden):
    compared = 0
    for name, case in golden.verify.items():
        activations = golden.activations(case)
        proofs = golden.proofs(case)
        if name in REFUSED:
            with pytest.raises(MalformedProof) as error:
                verify_proofs_bytes(activations, proofs, *arguments(case))
            assert error.value.reason == REFUSED[name], name
            continue
        if name == "g_tinyllama_p2/proofs of another response":  # two proofs; the original ignored the third chunk
            activations = activations[:64]
        results = verify_proofs_bytes(activations, proofs, *arguments(case))
        chunks = flat_chunks(activations, case)
        assert len(results) == len(proofs) == len(chunks)
        for number, (data, result) in enumerate(zip(proofs, results, strict=True)):
            proof = decode_proof(data, case["topk"])
            figures = (result.exp_mismatches, result.mant_err_mean, result.mant_err_median)
            if case["verifier_tie"][number]:
                indices = golden.arrays[case["verifier_topk_arrays"][number]]
                claimed = evaluate(proof.coefficients, (indices % proof.modulus).astype(np.uint16))
                own = chunks[number][indices]
                figures = compare(claimed, own, MANTISSA_BITS[DTYPES[case["dtype"]]])[1:]
            if case["tensor_path"] is not None:
                assert list(figures) == pytest.approx(case["tensor_path"][number], rel=1e-6), (name, number)
                compared += 1
            elif case["list_path"] is not None and proof.modulus == 65497:
                # The Python path takes the mean of the two middle values as median.
                assert list(figures)[:2] == pytest.approx(case["list_path"][number][:2]), (name, number)
                assert figures[2] >= case["list_path"][number][2]
                compared += 1
            elif name.endswith("identical"):  # float16, which the original cannot verify
                assert figures == (0, 0, 0)
    assert compared >= 180
