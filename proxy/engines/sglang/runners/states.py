"""The hidden states of a step: what a model hands to its logits processor."""

from __future__ import annotations

import functools
from typing import Any, Final

import torch

from ...guards import load
from .. import reliances

KEY: Final = "toploc_states"
"""In `customized_info` of an output that a CUDA graph was captured with."""


class Tap:
    """What the logits processor was last given, in the one thread that runs all forward passes of a process."""

    states: torch.Tensor | None = None


def install() -> None:
    """Wraps `LogitsProcessor.forward` in this process.

    It is given the output of the final norm for every row of the step, before they are pruned to those that are
    sampled from. Python does not run it in a decode step that is a CUDA graph. There the output that the graph was
    captured with carries the tensor: its memory is the graph's, which each replay writes anew, and which SGLang keeps
    alive with the output (model_executor/runner_backend/full_cuda_graph_backend.py, `_outputs`).
    """
    processor: Any = load(reliances.LOGITS_PROCESSOR)
    forward = processor.forward

    @functools.wraps(forward)
    def forward_and_keep(
        self: Any,
        input_ids: Any,
        hidden_states: torch.Tensor,
        lm_head: Any,
        logits_metadata: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        output = forward(self, input_ids, hidden_states, lm_head, logits_metadata, *args, **kwargs)
        Tap.states = hidden_states
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            output.customized_info = {KEY: hidden_states}
        return output

    processor.forward = forward_and_keep


def take(logits_output: Any) -> torch.Tensor | None:
    """The states of the forward pass that is over, which are forgotten here; None if it had none.

    SGLang sends what is left in `customized_info` to clients.
    """
    states, Tap.states = Tap.states, None
    info = getattr(logits_output, "customized_info", None)
    if info and KEY in info:
        states = info[KEY]
        logits_output.customized_info = {key: value for key, value in info.items() if key != KEY} or None
    return states
