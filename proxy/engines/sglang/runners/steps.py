"""From SGLang's forward passes to what the recorder takes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ....capture.step import Step
from ...guards import load
from .. import reliances
from . import states

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import torch

EXTENDING: Final = ("EXTEND", "MIXED")
"""Modes in which requests have several rows. By name: SGLang's `is_extend` says yes to others too."""


class Rows(NamedTuple):
    """Which rows a forward pass computes, and of whom. See `Step`."""

    request_ids: Sequence[str]
    first_positions: npt.NDArray[np.integer[Any]]
    starts: npt.NDArray[np.integer[Any]]
    positions: torch.Tensor
    input_ids: torch.Tensor


def install() -> None:
    """Wraps `ModelRunner.forward` in this process, which runs once a step of the model that answers."""
    runner_class: Any = load(reliances.MODEL_RUNNER)
    forward = runner_class.forward
    runner_class.toploc_worker = None

    @functools.wraps(forward)
    def forward_and_record(self: Any, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
        worker = self.toploc_worker
        # Before: attention's data parallelism pads the batch in place.
        rows = None if worker is None else rows_of(forward_batch)
        states.Tap.states = None
        output = forward(self, forward_batch, *args, **kwargs)
        # On every rank and in every mode: a captured tensor must not go on to the client.
        hidden_states = states.take(output.logits_output)
        if rows is not None and hidden_states is not None:
            worker.record(step_of(rows, hidden_states))
        return output

    runner_class.forward = forward_and_record


def rows_of(forward_batch: Any) -> Rows | None:
    """Those of a batch (ForwardBatch, model_executor/forward_batch_info.py); None of one without rows of requests.

    The processor's numbers are exact, with the overlap schedule too: they are advanced when a step is scheduled.
    """
    mode = forward_batch.forward_mode.name
    if not forward_batch.rids or mode not in ("DECODE", *EXTENDING):
        return None
    if mode == "DECODE":
        first = forward_batch.seq_lens_cpu.numpy() - 1
        starts = np.arange(len(first) + 1)
    else:
        # Rows of running requests come after those of a prefill, and are in the lists too.
        first = np.array(forward_batch.extend_prefix_lens_cpu, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(forward_batch.extend_seq_lens_cpu, dtype=np.int64)])
    return Rows(forward_batch.rids, first, starts, forward_batch.positions, forward_batch.input_ids)


def step_of(rows: Rows, hidden_states: torch.Tensor) -> Step:
    """With the states [>= T, hidden] that the pass computed for them."""
    return Step(rows.request_ids, rows.first_positions, rows.starts, hidden_states, rows.positions, rows.input_ids)
