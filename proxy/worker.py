"""What runs inside a vLLM worker: one recorder and its service, made once the model's shape is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import vllm
from vllm.distributed.parallel_state import get_pp_group, get_tp_group

from toploc.errors import UnsupportedEngine
from toploc.protocol import CHUNK_SIZE, TOPK

from .channel import worker_address
from .messages import PROTOCOL, Welcome
from .recorder import Recorder
from .ring import HostRing
from .service import Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm.config import VllmConfig

    from .runners.step import Step
    from .settings import Settings

DTYPES: dict[torch.dtype, Literal["bfloat16", "float16"]] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Worker:
    """The adapters' view of the recorder: what they call before and after a forward pass."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def before_step(self, scheduler_output: object) -> None:
        """Registers the requests that the scheduler sends for the first time, or again after preemption."""
        for request in scheduler_output.scheduled_new_reqs:  # type: ignore[attr-defined]
            params = request.sampling_params
            if params is not None and params.extra_args:
                prompt = request.prompt_token_ids
                self._recorder.register(request.req_id, params.extra_args, None if prompt is None else len(prompt))

    def after_step(self, finished_request_ids: Iterable[str]) -> None:
        self._recorder.finished(finished_request_ids)

    def record(self, step: Step) -> None:
        self._recorder.record(step)


def start_worker(settings: Settings, config: VllmConfig, runner: str, device: torch.device) -> Worker:
    """Makes the recorder for a model and answers on the side channel from here on.

    Raises:
        UnsupportedEngine: the model's hidden states cannot be proven.
    """
    hidden_size = config.model_config.get_hidden_size()
    if hidden_size < TOPK:
        raise UnsupportedEngine(
            f"toploc: hidden size {hidden_size} is below {TOPK}: a one-token chunk would have fewer elements than a "
            "proof has points; serve this model with plain `vllm serve`"
        )
    if device.type != "cpu":
        raise UnsupportedEngine(f"toploc: no ring for device {device.type}")
    source = config.model_config.dtype
    dtype = source if source in DTYPES else torch.bfloat16
    draft_tokens = config.speculative_config.num_speculative_tokens if config.speculative_config else 0
    slots = num_slots(config.scheduler_config.max_num_seqs)
    ring = HostRing(slots, ring_rows(draft_tokens), hidden_size, dtype, TOPK)
    recorder = Recorder(ring, settings.secret, draft_tokens=draft_tokens)
    welcome = Welcome(
        protocol=PROTOCOL,
        vllm_version=vllm.__version__,
        runner=runner,
        hidden_size=hidden_size,
        dtype=DTYPES[dtype],
        rounded_from=None if dtype is source else "float32",
        slots=slots,
    )
    address = worker_address(settings.channel, config.parallel_config.data_parallel_index)
    Service(address, recorder, welcome, capture_ttl=settings.capture_ttl).start()
    return Worker(recorder)


def is_output_rank() -> bool:
    """Whether this worker's outputs are the ones the engine reads: hidden states are whole on the last pipeline
    stage and equal over tensor-parallel ranks (vllm/v1/executor/multiproc_executor.py)."""
    return bool(get_pp_group().is_last_rank) and get_tp_group().rank_in_group == 0


def num_slots(max_num_seqs: int) -> int:
    """Slots for a scheduler that runs `max_num_seqs` requests at once: preempted requests and those whose proofs
    are being fetched hold one too."""
    return max_num_seqs + max(8, max_num_seqs // 8)


def ring_rows(draft_tokens: int) -> int:
    """Rows per slot: the chunk being filled, as many again for what the engine runs past a stop string before the
    front end has seen it, and the drafts of three steps."""
    return -(-(2 * CHUNK_SIZE + 3 * draft_tokens) // CHUNK_SIZE) * CHUNK_SIZE
