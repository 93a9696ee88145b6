"""What a proof costs, stage by stage, beside the original library. Prints the tables of README.md.

    python benchmarks/core/run.py [--original FOLDER]

FOLDER holds an installed toploc 0.1.6, built from its source (`pip install --no-build-isolation --no-deps
--target FOLDER toploc==0.1.6`). It is measured in a process of its own, before and after ours, and the
better figure counts. Without it, the figures measured once on such a machine stand in its place and are
marked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, HIDDEN, CHUNK, TOPK = 1000, 5120, 32, 128
PROOFS = -(-ROWS // CHUNK)
EARLIER = {"encode": 245, "evaluate": 70, "build": 900, "verify": 250, "verify, list of rows": 675}
"""Microseconds per proof of toploc 0.1.6 on a 2-core machine; middle of the ranges measured, least for
verify."""

BESIDE = {"encode, 32 at once": "encode", "verdict with decoys": "verify"}
"""What of the original the new functions stand beside."""


def microseconds(function: Callable[[], object], items: int = 1) -> float:
    """The fastest of at least 15 rounds within about a second, per item."""
    function()
    start = time.perf_counter()
    function()
    calls = max(1, int(0.05 / (time.perf_counter() - start + 1e-9)))
    best = float("inf")
    for _ in range(15):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - start) / calls)
    return best / items * 1e6


def activations(rows: int = ROWS, hidden: int = HIDDEN) -> torch.Tensor:
    return torch.randn(rows, hidden, generator=torch.Generator().manual_seed(0)).bfloat16()


def measure_original() -> dict[str, float]:
    from toploc.C.csrc.ndd import evaluate_polynomials

    from toploc import ProofPoly, build_proofs_bytes, verify_proofs_bytes

    values = activations()
    chunk = values[:CHUNK].reshape(-1)
    x = chunk.abs().topk(TOPK).indices
    y = chunk[x]
    poly = ProofPoly.from_points_tensor(x, y)
    points = [index % poly.modulus for index in x.tolist()]
    proofs = build_proofs_bytes(values, CHUNK, TOPK, True)
    rows = list(values)
    return {
        "encode": microseconds(lambda: ProofPoly.from_points_tensor(x, y).to_bytes()),
        "evaluate": microseconds(lambda: evaluate_polynomials(poly.coeffs, points)),
        "build": microseconds(lambda: build_proofs_bytes(values, CHUNK, TOPK, True), PROOFS),
        "verify": microseconds(lambda: verify_proofs_bytes(values, proofs, CHUNK, TOPK, True), PROOFS),
        "verify, list of rows": microseconds(lambda: verify_proofs_bytes(rows, proofs, CHUNK, TOPK, True), PROOFS),
    }


def measure_ours() -> dict[str, float]:
    import numpy as np

    import toploc
    from toploc.proofs.field import evaluate
    from toploc.proofs.topk import top_k
    from toploc.proofs.verdict import compare

    values = activations()
    patterns = values[:CHUNK].reshape(-1).view(torch.int16).numpy().view(np.uint16)
    indices, own = top_k(patterns, TOPK)
    proof = toploc.decode_proof(toploc.encode_points(indices, own))
    many, own_many = np.tile(indices, (32, 1)), np.tile(own, (32, 1))
    coefficients = proof.coefficients
    residues = (indices % proof.modulus).astype(np.uint16)
    proofs = toploc.build_proofs_bytes(values, CHUNK, TOPK, True)
    rows = list(values)

    def verify(sent: torch.Tensor | list[torch.Tensor]) -> None:
        toploc.verify_proofs_bytes(sent, proofs, CHUNK, TOPK, True)

    return {
        "encode": microseconds(lambda: toploc.encode_points(indices, own)),
        "encode, 32 at once": microseconds(lambda: toploc.encode_chunks(many, own_many), 32),
        "evaluate": microseconds(lambda: compare(evaluate(coefficients, residues), own, 7)),
        "build": microseconds(lambda: toploc.build_proofs_bytes(values, CHUNK, TOPK, True), PROOFS),
        "verify": microseconds(lambda: verify(values), PROOFS),
        "verify, list of rows": microseconds(lambda: verify(rows), PROOFS),
        "verdict with decoys": microseconds(lambda: toploc.verify_activations(proofs, values), PROOFS),
    }


def measure_stages(hidden: int, topk: int) -> dict[str, float]:
    """The stages of one chunk of 32 rows, in microseconds."""
    from dataclasses import replace

    import numpy as np

    from toploc import Thresholds, decode_proof, encode_points, verify_points
    from toploc.proofs.decoys import decoy_positions
    from toploc.proofs.field import INVERSES, evaluate, find_modulus, interpolate, modulus_floor
    from toploc.proofs.topk import top_k

    chunks = activations(CHUNK * 16, hidden).view(torch.int16).numpy().view(np.uint16).reshape(16, -1)
    indices, own = top_k(chunks[0], topk)
    wide = indices.astype(np.int64)
    data = encode_points(indices, own)
    proof = decode_proof(data, topk)
    coefficients = proof.coefficients
    residues = (indices % proof.modulus).astype(np.uint16)
    thresholds = replace(Thresholds.paper(), topk=topk, bounds=(replace(Thresholds.paper().bounds[0], mismatches=0),))

    def verdict() -> None:
        verify_points(proof, indices, own, dtype="bfloat16", rows=CHUNK, thresholds=thresholds)

    return {
        "top-k": microseconds(lambda: [top_k(chunk, topk) for chunk in chunks], len(chunks)),
        "modulus": microseconds(lambda: find_modulus(wide, modulus_floor(topk))),
        "interpolate": microseconds(lambda: interpolate(residues, own, INVERSES)),
        "encode (modulus, interpolate, bytes)": microseconds(lambda: encode_points(indices, own)),
        "decode": microseconds(lambda: decode_proof(data, topk)),
        "evaluate at k points": microseconds(lambda: evaluate(coefficients, residues)),
        "choose decoys": microseconds(lambda: decoy_positions(proof, residues)),
        "verdict (evaluate at k + 256, compare, bound)": microseconds(verdict),
    }


def print_table(heading: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(heading) + " |\n|" + " --- |" * len(heading))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def original_figures(folder: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--as-original"]
    environment = {**os.environ, "PYTHONPATH": folder}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", metavar="FOLDER")
    parser.add_argument("--as-original", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.as_original:
        print(json.dumps(measure_original()))
        return

    runs = [original_figures(options.original)] if options.original else []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # ours has one core, the original's verify has all
    ours = measure_ours()
    hiddens = {hidden: measure_stages(hidden, TOPK) for hidden in (1024, 2048, 4096, 5120, 8192, 16384)}
    topks = {topk: measure_stages(4096, topk) for topk in (32, 64, 128, 256, 512)}
    os.sched_setaffinity(0, cores)
    runs += [original_figures(options.original)] if options.original else []
    original = {name: min(run[name] for run in runs) for name in runs[0]} if runs else EARLIER

    print(f"Microseconds per proof, ({ROWS}, {HIDDEN}) bfloat16, chunks of {CHUNK} rows, k = {TOPK}\n")
    comparison = []
    for name, own in ours.items():
        other = original[BESIDE.get(name, name)]
        comparison.append([name, f"{other:.0f}", f"{own:.1f}", f"{other / own:.0f}"])
    print_table(["", "original" if runs else "original (earlier)", "ours, one core", "times faster"], comparison)
    print(f"Microseconds per stage by hidden size, chunks of {CHUNK} rows, k = {TOPK}\n")
    print_growth(hiddens)
    print(f"Microseconds per stage by k, chunks of {CHUNK} rows, hidden size 4096\n")
    print_growth(topks)


def print_growth(measured: dict[int, dict[str, float]]) -> None:
    stages = next(iter(measured.values()))
    rows = [[stage, *(f"{figures[stage]:.1f}" for figures in measured.values())] for stage in stages]
    print_table(["", *map(str, measured)], rows)


if __name__ == "__main__":
    main()
