"""What runs inside a vLLM worker: one recorder and its service, made once the model's shape is known."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import vllm
from vllm.distributed.parallel_state import get_pp_group, get_tp_group

from toploc.errors import UnsupportedEngine
from toploc.proofs.chunks import state_points
from toploc.scheme import CHUNK_SIZE, TOPK

from .capture import Chunk
from .channel.addresses import worker_address
from .channel.messages import PROTOCOL, Welcome
from .channel.relay import connect_worker
from .channel.service import Service
from .recorder import Recorder
from .ring import ChunkRefs, HostRing, Rows
from .runners.step import Step
from .verify_examine import Examiner
from .verify_rows import Prefills

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput

    from .head import Head
    from .ring import Ring
    from .settings import Settings

# On a CPU the front end competes with the model for the cores and may lag behind by more steps; memory is untouched
# until it is needed.
HOST_OVERRUN = 7 * CHUNK_SIZE

# All requests of a step may end in the next, and others begin before the front end has asked for their proofs. With 256
# requests of hidden size 4096 the ring then takes 252 MB.
DEVICE_SPARE = 224

DTYPES: dict[torch.dtype, Literal["bfloat16", "float16"]] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Worker:
    """The adapters' view of the recorder: what they call before and after a forward pass."""

    def __init__(self, recorder: Recorder, prefills: Prefills) -> None:
        self._recorder = recorder
        self._prefills = prefills

    def before_step(self, scheduler_output: SchedulerOutput) -> None:
        """Lets go of finished requests, then registers those sent for the first time, or again after preemption.

        In this order, since an id may be in both lists.
        """
        if scheduler_output.finished_req_ids:
            self._recorder.finished(scheduler_output.finished_req_ids)
            self._prefills.finished(scheduler_output.finished_req_ids)
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


def make_ring(config: VllmConfig, device: torch.device) -> Ring:
    """Takes the memory that captures need, once and for all.

    Raises:
        UnsupportedEngine: the model's hidden states cannot be proven.
    """
    hidden_size = config.model_config.get_hidden_size()
    if hidden_size < TOPK:
        raise UnsupportedEngine(
            f"toploc: hidden size {hidden_size} is below {TOPK}: a one-token chunk would have fewer elements than a "
            "proof has points; serve this model with plain `vllm serve`"
        )
    sequences = config.scheduler_config.max_num_seqs
    drafts = draft_tokens(config)
    dtype = proof_dtype(config)
    if device.type == "cpu":
        rows = ring_rows(drafts, overrun=HOST_OVERRUN)
        return HostRing(num_slots(sequences, spare=sequences), rows, hidden_size, dtype, TOPK)
    from .device_ring import DeviceRing

    return DeviceRing(
        device_slots(sequences), ring_rows(drafts), hidden_size, dtype, TOPK, device, max_step_rows=drafts + 1
    )


def start_worker(
    settings: Settings,
    config: VllmConfig,
    runner: str,
    ring: Ring,
    device: torch.device,
    head: Head | None,
    sampler: str | None,
) -> Worker:
    """Answers on the side channel from here on. `head`: the model's, where it has one apart from the engine's steps.
    `sampler`: its name, if its noise can be replayed."""
    recorder = Recorder(ring, settings.secret, draft_tokens=draft_tokens(config))
    prefills = Prefills(settings.secret)
    examiner = Examiner(prefills, head, device)
    examiner.start()
    dtype, source = proof_dtype(config), config.model_config.dtype
    welcome = Welcome(
        protocol=PROTOCOL,
        vllm_version=vllm.__version__,
        runner=runner,
        hidden_size=config.model_config.get_hidden_size(),
        dtype=DTYPES[dtype],
        rounded_from=None if dtype is source else "float32",
        slots=ring.num_slots,
        scores=examiner.has_scores,
        sampler=sampler,
    )
    warm_up(ring, torch.zeros(CHUNK_SIZE, config.model_config.get_hidden_size(), dtype=source, device=device))
    engine = config.parallel_config.data_parallel_index
    connect: Callable[[zmq.Socket[bytes]], None] | None = None
    if settings.remote is not None:
        connect = partial(connect_worker, address=settings.remote, secret=settings.secret, engine=engine)
    address = worker_address(settings.channel, engine)
    service = Service(address, recorder, welcome, capture_ttl=settings.capture_ttl, examiner=examiner, connect=connect)
    service.start()
    return Worker(recorder, prefills)


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
    Chunk.all_of(refs, ring.reduce(refs).features())
    ring.reduce_step(step, [0]).features()
    state_points(states, TOPK)


def proof_dtype(config: VllmConfig) -> torch.dtype:
    """What hidden states are kept as: their own dtype, or bfloat16 if that has more than 16 bits."""
    dtype: torch.dtype = config.model_config.dtype
    return dtype if dtype in DTYPES else torch.bfloat16


def draft_tokens(config: VllmConfig) -> int:
    """Most tokens that a step speculates per request."""
    speculative = config.speculative_config
    return int(speculative.num_speculative_tokens) if speculative is not None else 0


def is_last_stage() -> bool:
    """Whether this worker has the model's last layers, and its output head."""
    return bool(get_pp_group().is_last_rank)


def is_output_rank() -> bool:
    """Whether this worker's outputs are the ones the engine reads: hidden states are whole on the last pipeline
    stage and equal over tensor-parallel ranks (vllm/v1/executor/multiproc_executor.py)."""
    return is_last_stage() and get_tp_group().rank_in_group == 0


def num_slots(max_num_seqs: int, spare: int) -> int:
    """Slots for a scheduler that runs `max_num_seqs` requests at once: preempted requests and those whose proofs
    are being fetched hold one too."""
    return max_num_seqs + max(8, spare)


def device_slots(max_num_seqs: int) -> int:
    """Slots on a GPU, whose memory bounds the spare ones."""
    return num_slots(max_num_seqs, spare=min(max_num_seqs, DEVICE_SPARE))


def ring_rows(draft_tokens: int, overrun: int = CHUNK_SIZE) -> int:
    """Rows per slot: the chunk being filled, what the engine may run past a stop string before the front end has seen
    it, and the drafts of three steps; whole chunks."""
    return -(-(CHUNK_SIZE + overrun + 3 * draft_tokens) // CHUNK_SIZE) * CHUNK_SIZE
