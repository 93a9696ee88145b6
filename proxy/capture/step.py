"""What a model runner's adapter tells the recorder about one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import torch


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass over a batch of B requests and T rows; row r belongs to the request i with
    `starts[i] <= r < starts[i + 1]`. The arrays are the runner's own, valid until its next step: a step in which every
    request has one row costs no copy.

    Attributes:
        request_ids: the engine's request ids in batch order, [B].
        first_positions: position of each request's first row, int [B]; an upper bound while drafts of the step
            before may still turn out rejected.
        starts: first row of each request, and T, int [B + 1].
        hidden_states: output of the final norm, [>= T, hidden]; rows past T are padding.
        positions: exact position of each row, on the model's device, int64 [>= T].
        input_ids: input token of each row, on the model's device, [>= T].
    """

    request_ids: Sequence[str]
    first_positions: npt.NDArray[np.integer[Any]]
    starts: npt.NDArray[np.integer[Any]]
    hidden_states: torch.Tensor
    positions: torch.Tensor
    input_ids: torch.Tensor

    @property
    def one_row_each(self) -> bool:
        return int(self.starts[-1]) == len(self.request_ids)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """First row of each request, int64 [B]."""
        return self.starts[:-1].astype(np.int64)

    @property
    def num_rows(self) -> npt.NDArray[np.int64]:
        """Rows of each request, int64 [B]."""
        return np.diff(self.starts).astype(np.int64)
