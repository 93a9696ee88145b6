"""A script written for the original library; see docs/compatibility.md for what differs."""

import pickle

import pytest
import torch

import toploc
from toploc import InvalidActivations, MalformedProof, ProofPoly, VerificationResult

ROWS = torch.randn(70, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
FORMS = [
    (toploc.build_proofs, toploc.verify_proofs),
    (toploc.build_proofs_bytes, toploc.verify_proofs_bytes),
    (toploc.build_proofs_base64, toploc.verify_proofs_base64),
]


@pytest.mark.parametrize(("build", "verify"), FORMS, ids=["poly", "bytes", "base64"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("skip_prefill", [False, True])
def test_build_and_verify(build, verify, dtype, skip_prefill):
    rows = ROWS.to(dtype)
    for activations in (rows, [rows[:5], *rows[5:]]):
        proofs = build(activations, decode_batching_size=16, topk=64, skip_prefill=skip_prefill)
        results = verify(activations, proofs, decode_batching_size=16, topk=64, skip_prefill=skip_prefill)
        assert results == [VerificationResult(0, 0.0, 0.0)] * len(proofs)
        assert all(result.rounded == (dtype == torch.float32) for result in results)


def test_list_and_tensor_agree():
    assert toploc.build_proofs(ROWS, 32, 128, True) == toploc.build_proofs(list(ROWS), 32, 128, True)


def test_indices_are_reduced_in_the_list_path():
    """The original evaluated at the index itself there, and refused honest chunks with m < 65497."""
    rows = torch.zeros(32, 4096, dtype=torch.bfloat16)
    rows.view(-1)[[0, 65497, 1, 65498]] = torch.tensor([1, 2, 3, 4], dtype=torch.bfloat16)
    proofs = toploc.build_proofs(rows, 32, 4, True)
    assert proofs[0].modulus == 65495
    assert toploc.verify_proofs(list(rows), proofs, 32, 4, True)[0].exp_mismatches == 0


def test_poly():
    poly = ProofPoly([1, 2, 3, 4], 65497)
    assert poly(42) == (1 + 2 * 42 + 3 * 42**2 + 4 * 42**3) % 65497
    assert len(poly) == 4
    assert repr(poly) == "ProofPoly[65497]([1, 2, 3, 4])"
    assert poly.to_bytes() == b"\xff\xd9\0\1\0\2\0\3\0\4"
    assert ProofPoly.from_bytes(poly.to_bytes()) == ProofPoly.from_base64(poly.to_base64()) == poly
    assert pickle.loads(pickle.dumps(poly)) == poly != ProofPoly([1, 2, 3, 5], 65497)
    assert (ProofPoly([], 65497)(5), ProofPoly.null(3)(5)) == (0, 0)
    assert ProofPoly.null(3) == ProofPoly([0, 0, 0], 0)


@pytest.mark.parametrize("topk", range(1, 9))
def test_base64_of_every_padding(topk):
    poly = ProofPoly.from_points(range(topk), range(topk))
    assert ProofPoly.from_base64(poly.to_base64()) == poly


def test_from_points():
    assert ProofPoly.from_points([9, 3, 7, 1], [1, 2, 3, 4]).coeffs == [34802, 45708, 63451, 52534]
    values = torch.tensor([1.5, -2, 0.25], dtype=torch.bfloat16)
    x = torch.tensor([4, 70_000, 2**33])
    poly = ProofPoly.from_points_tensor(x, values)
    assert [poly(int(i)) for i in x] == (values.view(torch.int16).int() & 0xFFFF).tolist()
    assert ProofPoly.from_points_tensor(x.expand(2, 3)[0], values.repeat(2).view(2, 3).t()[:, 0]) == poly
    assert ProofPoly.from_points_tensor(x, values.float()).rounded
    assert not poly.rounded


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1], [1, 2]), ([1, 1], [1, 2]), ([-1], [1]), ([2**70], [1]), (["a"], [1]), ([1], None)],
)
def test_points_without_a_polynomial(x, y):
    with pytest.raises(InvalidActivations):
        ProofPoly.from_points(x, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.tensor([1.0]), torch.tensor([1.0])),
        (torch.tensor([[1]]), torch.tensor([1.0])),
        (torch.tensor([1]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.tensor([1], device="meta"), torch.tensor([1.0])),
    ],
)
def test_tensors_without_a_polynomial(x, y):
    with pytest.raises(InvalidActivations):
        ProofPoly.from_points_tensor(x, y)


@pytest.mark.parametrize("values", [[-1], [65536], [None], ["a"]])
def test_numbers_that_do_not_fit(values):
    with pytest.raises(MalformedProof):
        ProofPoly(values, 65497).to_bytes()


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd9", b"\xff\xd9\0", bytes(258)])
def test_bytes_that_are_no_proof(data):
    with pytest.raises(MalformedProof):
        ProofPoly.from_bytes(data)


@pytest.mark.parametrize("text", ["", "=", "====", "/9k=", "A" * 343, "é" * 344])
def test_text_that_is_no_proof(text):
    with pytest.raises(MalformedProof):
        ProofPoly.from_base64(text)


@pytest.mark.parametrize(
    ("activations", "batching", "topk"),
    [
        pytest.param(ROWS, 0, 128, id="batching-0"),
        pytest.param(ROWS, -1, 128, id="batching-negative"),
        pytest.param(ROWS, 32, 0, id="topk-0"),
        pytest.param(ROWS[:33, :100], 32, 128, id="short-last-chunk"),
        pytest.param(ROWS.double(), 32, 128, id="float64"),
        pytest.param(ROWS.int(), 32, 128, id="integer"),
        pytest.param(ROWS[None], 32, 128, id="3-d"),
        pytest.param(ROWS[0], 32, 128, id="1-d"),
        pytest.param(ROWS.to("meta"), 32, 128, id="meta"),
        pytest.param([], 32, 128, id="no-prefill"),
        pytest.param(["row"], 32, 128, id="not-tensors"),
    ],
)
def test_input_on_which_the_original_died_or_returned_null_proofs(activations, batching, topk):
    with pytest.raises(InvalidActivations):
        toploc.build_proofs(activations, batching, topk)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_number_of_proofs(count):
    proofs = (toploc.build_proofs_bytes(ROWS, 32, 128, True) * 2)[:count]
    with pytest.raises(MalformedProof):
        toploc.verify_proofs_bytes(ROWS, proofs, 32, 128, True)


def test_null_proofs_are_malformed():
    with pytest.raises(MalformedProof):
        toploc.verify_proofs(ROWS[:32], [ProofPoly.null(128)], 32, 128, True)


def test_nothing_to_prove():
    assert toploc.build_proofs_bytes([], 32, 128, skip_prefill=True) == []
    assert toploc.verify_proofs_bytes(ROWS[:0], [], 32, 128, skip_prefill=True) == []


def test_result_repr():
    result = VerificationResult(3, 0.368, 2.0**64)
    expected = "VerificationResult[exp_mismatches=3, mant_err_mean=0.368, mant_err_median=1.84467e+19]"
    assert repr(result) == expected
    assert pickle.loads(pickle.dumps(result)) == result


def test_sha256sum(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert toploc.sha256sum(str(path)) == toploc.sha256sum(path, chunk_size=1) == expected
