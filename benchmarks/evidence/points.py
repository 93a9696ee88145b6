"""The points of answers' chunks, as claimed and as a verifier has them, for statistics that are not thought of yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from toploc.proofs.chunks import state_points
from toploc.scheme import CHUNK_SIZE, TOPK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from questions import Answer

ANSWERS, CHUNKS = 128, 16
"""Kept of a row: so many answers, and so many whole chunks of each."""


def save_points(folder: Path, name: str, answers: Sequence[Answer], states: Sequence[torch.Tensor]) -> Path:
    """Writes a .npz of `proofs` uint8[answers, chunks, 258], `indices` uint16 or uint32[answers, chunks, 128], the
    places of the verifier's largest elements in a chunk's states [32, hidden], flattened, `patterns` uint16 alike,
    their bits, and the answers' `token_ids` uint32[answers, 32 chunks]."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = min(CHUNKS, min(len(answer.token_ids) for answer in answers) // CHUNK_SIZE) * CHUNK_SIZE
    kept = list(zip(answers[:ANSWERS], states[:ANSWERS], strict=True))
    found = [state_points(rows[:tokens], TOPK) for _, rows in kept]
    indices = np.stack([np.stack(points.indices) for points in found])
    width = np.uint16 if CHUNK_SIZE * states[0].shape[1] <= 2**16 else np.uint32
    path = folder / (re.sub(r"[^A-Za-z0-9]+", "-", name) + ".npz")
    np.savez_compressed(
        path,
        proofs=np.array([[list(proof) for proof in a.proofs[: tokens // CHUNK_SIZE]] for a, _ in kept], np.uint8),
        indices=indices.astype(width),
        patterns=np.stack([np.stack(points.patterns) for points in found]).astype(np.uint16),
        token_ids=np.array([answer.token_ids[:tokens] for answer, _ in kept], np.uint32),
    )
    return path
