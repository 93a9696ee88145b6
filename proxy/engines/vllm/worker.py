"""What runs inside a vLLM worker: one recorder and its service, made once the model's shape is known."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import vllm

from toploc.proofs.chunks import state_points
from toploc.scheme import CHUNK_SIZE, TOPK

from ...capture.chunks import EncodedChunk
from ...capture.recorder import Recorder
from ...capture.ring import ChunkRefs, Rows
from ...capture.sizes import DTYPES, Shape
from ...capture.step import Step
from ...channel.addresses import worker_address
from ...channel.messages import PROTOCOL, Welcome
from ...channel.relay import connect_worker
from ...channel.service import Service
from ...examine.examiner import Examiner
from ...examine.prefills import Prefills

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput

    from ...capture.ring import Ring
    from ...channel.messages import Mode
    from ...settings import Settings
    from .head import Head


class StepObserver:
    """What the adapters call around a forward pass, and around what happens between two: tells recorder and prefills of
    it."""

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

    def before_step(self, scheduler_output: SchedulerOutput) -> None:
        """Lets go of finished requests, then registers those sent for the first time, or again after preemption.

        In this order, since an id may be in both lists. Between the two come other weights, if any were loaded.
        """
        if scheduler_output.finished_req_ids:
            self._recorder.finished(scheduler_output.finished_req_ids)
            self._prefills.finished(scheduler_output.finished_req_ids)
        if self._weights_changed:
            self._weights_changed = False
            self._recorder.weights_changed()
        for request in scheduler_output.scheduled_new_reqs:
            params = request.sampling_params
            if params is not None and params.extra_args:
                if self._prefills.register(request.req_id, params.extra_args):
                    continue
                prompt = request.prompt_token_ids
                self._recorder.register(request.req_id, params.extra_args, None if prompt is None else len(prompt))

    def record(self, step: Step) -> None:
        self._recorder.record(step)
        self._prefills.record(step)


def shape_of(config: VllmConfig) -> Shape:
    """What the ring of a worker with this configuration has to be made for."""
    speculative = config.speculative_config
    return Shape(
        hidden_size=config.model_config.get_hidden_size(),
        dtype=config.model_config.dtype,
        sequences=config.scheduler_config.max_num_seqs,
        draft_tokens=int(speculative.num_speculative_tokens) if speculative is not None else 0,
    )


def start_worker(
    settings: Settings,
    config: VllmConfig,
    runner: str,
    ring: Ring,
    device: torch.device,
    head: Head | None,
    sampler: str | None,
    mode: Mode,
) -> StepObserver:
    """Answers on the side channel from here on. `head`: the model's, where it has one apart from the engine's steps.
    `sampler`: its name, if its noise can be replayed. `mode`: how the engine computes."""
    shape = shape_of(config)
    recorder = Recorder(ring, settings.secret, draft_tokens=shape.draft_tokens)
    prefills = Prefills(settings.secret)
    examiner = Examiner(prefills, head, device)
    examiner.start()
    welcome = Welcome(
        protocol=PROTOCOL,
        engine_version=vllm.__version__,
        runner=runner,
        hidden_size=shape.hidden_size,
        dtype=DTYPES[shape.proof_dtype],
        rounded_from=None if shape.proof_dtype is shape.dtype else "float32",
        slots=ring.num_slots,
        scores=examiner.has_scores,
        sampler=sampler,
        mode=mode,
    )
    warm_up(ring, torch.zeros(CHUNK_SIZE, shape.hidden_size, dtype=shape.dtype, device=device))
    engine = config.parallel_config.data_parallel_index
    connect: Callable[[zmq.Socket[bytes]], None] | None = None
    if settings.remote is not None:
        connect = partial(connect_worker, address=settings.remote, secret=settings.secret, engine=engine)
    address = worker_address(settings.channel, engine)
    service = Service(address, recorder, welcome, capture_ttl=settings.capture_ttl, examiner=examiner, connect=connect)
    service.start()
    observer = StepObserver(recorder, prefills, examiner)
    # An engine in its caller's process ends before the process does.
    weakref.finalize(observer, service.stop).atexit = False
    return observer


def warm_up(ring: Ring, states: torch.Tensor) -> None:
    """Sends rows [32, hidden] all the way to a proof, one by the ring and a chunk past it, and to a verification:
    compiles what there is to compile, or loads it from the caches on disk, before an answer waits for that."""
    none = np.zeros(0, dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    positions = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    step = Step([], none, none, states, positions, positions.int())
    # No capture has epoch 0.
    # Twice: the second time as in most steps.
    for _ in range(2):
        ring.write(step, Rows(rows=zero, slots=zero, epochs=zero))
    refs = ChunkRefs(slots=zero, epochs=zero, first_positions=zero, num_rows=zero + 1)
    EncodedChunk.all_of(refs, ring.reduce(refs).features())
    ring.reduce_step(step, [0]).features()
    state_points(states, TOPK)
