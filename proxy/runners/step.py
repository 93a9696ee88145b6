"""What a model runner's adapter tells the recorder about one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass over a batch of B requests and T rows; row r belongs to the request i with
    `offsets[i] <= r < offsets[i + 1]`.

    Attributes:
        request_ids: the engine's request ids in batch order, [B].
        first_positions: position of each request's first row, int64 [B]; an upper bound while drafts of the step
            before may still turn out rejected.
        num_rows: rows of each request, int64 [B].
        offsets: first row of each request, int64 [B].
        hidden_states: output of the final norm, [>= T, hidden]; rows past T are padding.
        positions: exact position of each row, on the model's device, int64 [>= T].
        input_ids: input token of each row, on the model's device, [>= T].
    """

    request_ids: Sequence[str]
    first_positions: npt.NDArray[np.int64]
    num_rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    hidden_states: torch.Tensor
    positions: torch.Tensor
    input_ids: torch.Tensor
