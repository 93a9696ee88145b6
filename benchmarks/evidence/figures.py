"""Figures of one chunk: what the library's verdict rests on, and how far each point is off, in units of last place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toploc.proofs.chunks import state_points
from toploc.proofs.field import evaluate
from toploc.proofs.format import decode_proof
from toploc.proofs.verdict import verify_points
from toploc.scheme import CHUNK_SIZE, TOPK
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray
    from questions import Answer

PAPER = Thresholds.paper()
EDGES = np.array([1, 2, 3, 4, 5, 7, 9, 13, 17, 33])
"""Classes of distance begin here."""
CLASSES = 2 * len(EDGES) + 1
NAMES = ("mismatches", "exponent_mismatches", "mantissa_mean", "mantissa_median", "decoy_hits", "passed")
"""In this order, followed by how many points are in each class of signed distance, the most negative first."""


def of_answers(answers: Sequence[Answer], states: Sequence[torch.Tensor]) -> list[list[list[float]]]:
    """One list for each whole chunk of each answer, from the verifier's states [tokens, hidden]."""
    found = []
    for answer, rows in zip(answers, states, strict=True):
        points = state_points(rows[: len(rows) // CHUNK_SIZE * CHUNK_SIZE], TOPK)
        chunks = zip(answer.proofs, points.indices, points.patterns, strict=False)
        found.append([_of_chunk(*chunk) for chunk in chunks])
    return found


def _of_chunk(data: bytes, indices: NDArray[np.int32], patterns: NDArray[np.uint16]) -> list[float]:
    proof = decode_proof(data)
    verdict = verify_points(proof, indices, patterns, dtype="bfloat16", rows=CHUNK_SIZE, thresholds=PAPER)
    claimed = evaluate(proof.coefficients, (indices % proof.modulus).astype(np.uint16))
    figures = [
        verdict.mismatches,
        verdict.exponent_mismatches,
        round(min(verdict.mantissa_mean, 1e3), 4),
        min(verdict.mantissa_median, 1e3),
        verdict.decoy_hits,
        int(verdict.passed),
    ]
    return [*figures, *classes(claimed, patterns).tolist()]


def classes(claimed: NDArray[np.uint16], own: NDArray[np.uint16]) -> NDArray[np.int64]:
    """How many points are in each class of claimed less own, as magnitudes' patterns, the sign being the
    verifier's: a step of 1 is a unit in the last place, also where it crosses to the next exponent."""
    signed = np.where((claimed ^ own) & 0x8000, -1, 1) * (claimed & 0x7FFF).astype(int)
    off = signed - (own & 0x7FFF).astype(int)
    place = np.sign(off) * np.searchsorted(EDGES, np.abs(off), side="right")
    return np.bincount(place + len(EDGES), minlength=CLASSES)
