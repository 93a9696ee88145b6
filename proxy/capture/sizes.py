"""How large a ring has to be, and of which dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import torch

from toploc.errors import UnsupportedEngine
from toploc.scheme import CHUNK_SIZE, TOPK

from .host_ring import HostRing

if TYPE_CHECKING:
    from .ring import Ring

HOST_OVERRUN: Final = 7 * CHUNK_SIZE
"""Rows. On a CPU the front end competes with the model for the cores and may lag behind by more steps; memory is
untouched until it is needed."""

DEVICE_SPARE: Final = 224
"""Slots. All requests of a step may end in the next, and others begin before the front end has asked for their proofs.
With 256 requests of hidden size 4096 the ring then takes 252 MB."""

DTYPES: Final[dict[torch.dtype, Literal["bfloat16", "float16"]]] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""What proofs can be made of (docs/proof-format.md), under the names that `toploc_proofs.dtype` has for it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a ring has to be made for.

    Attributes:
        hidden_size, dtype: of the model's hidden states.
        sequences: requests that the engine runs at once.
        draft_tokens: most tokens that a step speculates per request.
    """

    hidden_size: int
    dtype: torch.dtype
    sequences: int
    draft_tokens: int

    @property
    def proof_dtype(self) -> torch.dtype:
        """What hidden states are kept as: their own dtype, or bfloat16 if that has more than 16 bits."""
        return self.dtype if self.dtype in DTYPES else torch.bfloat16


def make_ring(shape: Shape, device: torch.device) -> Ring:
    """Takes the memory that captures need, once and for all.

    Raises:
        UnsupportedEngine: the model's hidden states cannot be proven.
    """
    hidden_size, dtype, drafts = shape.hidden_size, shape.proof_dtype, shape.draft_tokens
    if hidden_size < TOPK:
        raise UnsupportedEngine(
            f"toploc: hidden size {hidden_size} is below {TOPK}: a one-token chunk would have fewer elements than a "
            "proof has points; serve this model without proofs"
        )
    if device.type == "cpu":
        rows = ring_rows(drafts, overrun=HOST_OVERRUN)
        return HostRing(num_slots(shape.sequences, spare=shape.sequences), rows, hidden_size, dtype, TOPK)
    from .device_ring import DeviceRing

    return DeviceRing(
        device_slots(shape.sequences), ring_rows(drafts), hidden_size, dtype, TOPK, device, max_step_rows=drafts + 1
    )


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
