"""What runs in an engine's worker, once the model's shape is known: one recorder, one examiner, and their service."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toploc.proofs.chunks import state_points
from toploc.scheme import CHUNK_SIZE, TOPK

from .capture.chunks import EncodedChunk
from .capture.recorder import Recorder
from .capture.ring import ChunkRefs, Rows
from .capture.sizes import DTYPES
from .capture.step import Step
from .channel.addresses import worker_address
from .channel.messages import PROTOCOL, Welcome
from .channel.relay import connect_worker
from .channel.service import Service
from .examine.examiner import Examiner
from .examine.prefills import Prefills

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import zmq

    from .capture.ring import Ring
    from .capture.sizes import Shape
    from .channel.messages import Mode
    from .examine.examiner import Head
    from .settings import Settings


class Observer:
    """What an engine's adapter calls around a forward pass, and around what happens between two: tells recorder and
    prefills of it."""

    def __init__(self, recorder: Recorder, prefills: Prefills, examiner: Examiner) -> None:
        self._recorder = recorder
        self._prefills = prefills
        self._examiner = examiner
        self._weights_changed = False
        self._sleeps = False

    def weights_changing(self) -> None:
        """Other weights are about to be loaded, or a part of them. Those of all parts until the next step are one
        version."""
        self._weights_changed = True
        self._prefills.weights_changing()

    def weights_settled(self) -> None:
        """A step is about to run, under the weights that are there."""
        if self._weights_changed:
            self._weights_changed = False
            self._recorder.weights_changed()

    def sleep(self) -> None:
        """The model's memory, with the ring in it, is about to be unmapped."""
        self._sleeps = True
        self._examiner.sleep()
        self._recorder.sleep()

    def wake(self) -> None:
        """It is there again, if it was gone."""
        if self._sleeps:
            self._sleeps = False
            self._recorder.wake()
            self._examiner.wake()

    def register(self, request_id: str, extra_args: Mapping[str, Any], prompt_len: int | None) -> None:
        """A request is sent for the first time, or again after it was preempted."""
        if not self._prefills.register(request_id, extra_args):
            self._recorder.register(request_id, extra_args, prompt_len)

    def finished(self, request_ids: Iterable[str]) -> None:
        """The engine is done with these."""
        self._recorder.finished(request_ids)
        self._prefills.finished(request_ids)

    def record(self, step: Step) -> None:
        self._recorder.record(step)
        self._prefills.record(step)


@dataclass(frozen=True, slots=True)
class Description:
    """A worker, as its engine's adapter knows it.

    Attributes:
        shape: what its ring was made for.
        version: the engine's.
        runner: how the model runner is called in `GET /v1/toploc`; empty where there is but one kind.
        engine: its number among data-parallel ones.
        sampler: its name, if its noise can be replayed.
        mode: how the engine computes.
    """

    shape: Shape
    version: str
    runner: str
    engine: int
    sampler: str | None
    mode: Mode


def start_worker(
    settings: Settings, described: Description, ring: Ring, device: torch.device, head: Head | None
) -> Observer:
    """Answers on the side channel from here on. `head`: the model's, where it has one apart from the engine's steps."""
    shape = described.shape
    recorder = Recorder(ring, settings.secret, draft_tokens=shape.draft_tokens)
    prefills = Prefills(settings.secret)
    examiner = Examiner(prefills, head, device)
    examiner.start()
    welcome = Welcome(
        protocol=PROTOCOL,
        engine_version=described.version,
        runner=described.runner,
        hidden_size=shape.hidden_size,
        dtype=DTYPES[shape.proof_dtype],
        rounded_from=None if shape.proof_dtype is shape.dtype else "float32",
        slots=ring.num_slots,
        scores=examiner.has_scores,
        sampler=described.sampler,
        mode=described.mode,
    )
    warm_up(ring, torch.zeros(CHUNK_SIZE, shape.hidden_size, dtype=shape.dtype, device=device))
    engine = described.engine
    connect: Callable[[zmq.Socket[bytes]], None] | None = None
    if settings.remote is not None:
        connect = partial(connect_worker, address=settings.remote, secret=settings.secret, engine=engine)
    address = worker_address(settings.channel, engine)
    service = Service(address, recorder, welcome, capture_ttl=settings.capture_ttl, examiner=examiner, connect=connect)
    service.start()
    observer = Observer(recorder, prefills, examiner)
    # An engine in its caller's process ends before the process does.
    weakref.finalize(observer, service.stop).atexit = False
    return observer


def warm_up(ring: Ring, states: torch.Tensor) -> None:
    """Sends rows [32, hidden] all the way to a proof, one by the ring and a chunk past it, and to a verification:
    compiles what there is to compile, or loads it from the caches on disk, before an answer waits for that."""
    none = np.zeros(0, dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    positions = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    refs = ChunkRefs(slots=zero, epochs=zero, first_positions=zero, num_rows=zero + 1)
    # Kernels are compiled for each: input ids have 32 bits in vLLM, and 64 in SGLang.
    for input_ids in (positions.int(), positions):
        step = Step([], none, none, states, positions, input_ids)
        # No capture has epoch 0.
        # Twice: the second time as in most steps.
        for _ in range(2):
            ring.write(step, Rows(rows=zero, slots=zero, epochs=zero))
        ring.reduce_step(step, [0]).features()
    EncodedChunk.all_of(refs, ring.reduce(refs).features())
    state_points(states, TOPK)
