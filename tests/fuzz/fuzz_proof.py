"""Fuzz target: whatever is sent as a proof is decoded and judged, or is a MalformedProof.

python tests/fuzz/fuzz_proof.py -atheris_runs=20000 [-max_len=800] [corpus folder]
"""

import math
import sys

import atheris
import numpy as np
import torch

from toploc.errors import MalformedProof
from toploc.poly import ProofPoly, verify_proofs_base64, verify_proofs_bytes
from toploc.proofs.channels import MOST
from toploc.proofs.field import PRIME, modulus_floor
from toploc.proofs.format import Proof, decode_proof
from toploc.proofs.topk import top_k
from toploc.proofs.verdict import verify_activations, verify_points
from toploc.thresholds.bounds import Thresholds

# Not whole modules: numba cannot compile what atheris has instrumented.
for function in (decode_proof, Proof.__post_init__, ProofPoly._from.__func__):
    atheris.instrument_func(function)

REASONS = {"type", "length", "base64", "modulus", "coefficient", "count"}
TOPK = 16
THRESHOLDS = Thresholds.from_dict(
    {
        "name": "fuzz",
        "dtype": "bfloat16",
        "topk": TOPK,
        "provenance": "none",
        "bounds": [{"rows": 1, "mismatches": 5, "mantissa_mean": 10, "mantissa_median": 8}],
        "pooled": {
            "honest": {"mean": 0.5, "between": 0.1, "within": 0.1},
            "noise": {"hidden_size": 64, "usual": 0.01, "channels": {3: 1e-300, 5: 1e300}},
            "provenance": "none",
        },
    }
)
ROWS = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
POINTS = top_k(ROWS.view(-1).view(torch.int16).numpy().view(np.uint16), TOPK)


def likely(data):
    """Bytes with the shape of a proof: a modulus and coefficients near or in their ranges."""
    words = [data.ConsumeIntInRange(modulus_floor(TOPK) - 1, PRIME + 1)]
    words += [data.ConsumeIntInRange(0, PRIME) for _ in range(TOPK)]
    return np.array(words, ">u2").tobytes()


def attempt(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except MalformedProof as error:
        if error.reason not in REASONS:
            raise
        return None


def one_input(buffer):
    data = atheris.FuzzedDataProvider(buffer)
    kind = data.ConsumeIntInRange(0, 2)
    if kind == 0:
        sent = likely(data)
    elif kind == 1:
        sent = data.ConsumeBytes(data.ConsumeIntInRange(0, 300))
    else:
        sent = data.ConsumeUnicode(data.ConsumeIntInRange(0, 400))
    proof = attempt(decode_proof, sent, TOPK)
    attempt(decode_proof, sent)
    decode = ProofPoly.from_base64 if isinstance(sent, str) else ProofPoly.from_bytes
    poly = attempt(decode, sent)
    options = {"chunk_size": 8, "topk": TOPK, "thresholds": THRESHOLDS, "secret": buffer[:4]}
    verdict = attempt(verify_activations, [sent], ROWS, **options)
    original = verify_proofs_base64 if isinstance(sent, str) else verify_proofs_bytes
    results = attempt(original, ROWS, [sent], 8, TOPK, skip_prefill=True)
    assert (proof is None) == (verdict is None) == (results is None)
    if proof is None:
        return
    assert proof.data == sent or proof.base64 == sent
    assert poly.to_bytes() == proof.data
    assert modulus_floor(TOPK) <= proof.modulus <= PRIME
    assert (proof.coefficients < PRIME).all()
    (chunk,) = verdict.chunks
    again = verify_points(proof, *POINTS, dtype="bfloat16", rows=8, thresholds=THRESHOLDS, secret=buffer[:4])
    assert chunk == again
    assert 0 <= results[0].exp_mismatches == chunk.exponent_mismatches <= chunk.mismatches <= TOPK
    assert 0 <= chunk.decoy_hits <= chunk.decoys
    assert all(math.isfinite(figure) and figure >= 0 for figure in (chunk.mantissa_mean, chunk.mantissa_median))
    assert 0 <= chunk.channel_error <= math.log(1 + 4 * MOST) + 1e-9
    assert chunk.passed == verdict.passed == (not chunk.reasons)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
