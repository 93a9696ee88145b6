"""How large a ring has to be, and of which dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from toploc.errors import UnsupportedEngine
from toploc.scheme import CHUNK_SIZE, TOPK

from .host_ring import HostRing

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from .ring import Ring

# On a CPU the front end competes with the model for the cores and may lag behind by more steps; memory is untouched
# until it is needed.
HOST_OVERRUN = 7 * CHUNK_SIZE

# All requests of a step may end in the next, and others begin before the front end has asked for their proofs. With 256
# requests of hidden size 4096 the ring then takes 252 MB.
DEVICE_SPARE = 224

DTYPES: dict[torch.dtype, Literal["bfloat16", "float16"]] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


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


def proof_dtype(config: VllmConfig) -> torch.dtype:
    """What hidden states are kept as: their own dtype, or bfloat16 if that has more than 16 bits."""
    dtype: torch.dtype = config.model_config.dtype
    return dtype if dtype in DTYPES else torch.bfloat16


def draft_tokens(config: VllmConfig) -> int:
    """Most tokens that a step speculates per request."""
    speculative = config.speculative_config
    return int(speculative.num_speculative_tokens) if speculative is not None else 0


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
