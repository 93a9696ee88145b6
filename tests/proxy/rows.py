"""Rows as the runners hand them over, and a recorder to take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.recorder import Recorder
from toploc_proxy.capture.sizes import ring_rows
from toploc_proxy.capture.step import Step
from toploc_proxy.channel.tag import EXTRA_ARG, Key, Tag

from toploc.errors import ProofUnavailable
from toploc.proofs.format import encode_points
from toploc.proofs.topk import top_k
from toploc.scheme import CHUNK_SIZE, TOPK

SECRET = "engine"
HIDDEN = 128


def patterns(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 2**16, (rows, HIDDEN), dtype=np.uint16)


def proofs_of(states: np.ndarray) -> list[bytes]:
    chunks = [states[i : i + CHUNK_SIZE] for i in range(0, len(states), CHUNK_SIZE)]
    return [encode_points(*top_k(chunk.ravel(), TOPK)) for chunk in chunks]


def make_step(rows: list[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]]) -> Step:
    """A forward pass over (request, claimed first position, positions, input ids, states) each; rows that belong to
    no request ("") are padding."""
    num_rows = np.array([len(ids) for *_, ids, _ in rows], dtype=np.int64)
    requests = [(name, first) for name, first, *_ in rows if name]
    states = np.concatenate([states for *_, states in rows])
    return Step(
        request_ids=[name for name, _ in requests],
        first_positions=np.array([first for _, first in requests], dtype=np.int64),
        starts=np.array([0, *np.cumsum(num_rows[: len(requests)])]),
        hidden_states=torch.from_numpy(states.view(np.int16)).view(torch.bfloat16),
        positions=torch.from_numpy(np.concatenate([positions for _, _, positions, _, _ in rows])),
        input_ids=torch.from_numpy(np.concatenate([ids for *_, ids, _ in rows])).int(),
    )


def make_recorder(num_slots: int = 1, dtype: torch.dtype = torch.bfloat16, draft_tokens: int = 0) -> Recorder:
    ring = HostRing(num_slots, ring_rows(draft_tokens), HIDDEN, dtype, TOPK)
    return Recorder(ring, SECRET, draft_tokens=draft_tokens)


def register(
    recorder: Recorder, request_id: str, prompt_len: int | None, *, start: int | None = None, children: int = 1
) -> Tag:
    tag = Tag.new(start=start, children=children)
    recorder.register(request_id, {EXTRA_ARG: tag.seal(SECRET)}, prompt_len)
    return tag


def record(recorder: Recorder, request_id: str, first: int, ids: np.ndarray, states: np.ndarray) -> None:
    positions = np.arange(first, first + len(ids))
    recorder.record(make_step([(request_id, first, positions, ids, states)]))


def code_of(recorder: Recorder, key: Key, inputs: list[int]) -> str:
    with pytest.raises(ProofUnavailable) as caught:
        recorder.finalize(key, inputs)
    return caught.value.code


ONES = np.ones(40, dtype=np.int64)
STATES = patterns(np.random.default_rng(0), 40)
