"""Adapter for vLLM's second model runner (vllm/v1/worker/gpu/model_runner.py), the default on GPUs.

Checked against vLLM 0.26.0; 0.32.0 by reading. `sample` runs once per step for generation, on the last pipeline stage,
after the forward pass and before anything of the step is copied to the host. Dummy and profiling runs never reach it;
kernel warm-up does, with requests that carry no tag.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ....capture.step import Step
from ...guards import load, require
from .. import reliances
from .lifecycle import wrap_lifecycle
from .requests import before_step

if TYPE_CHECKING:
    import torch
    from vllm.v1.core.sched.output import SchedulerOutput


def install() -> None:
    """Wraps the runner's methods in this process.

    Raises:
        UnsupportedEngine: this vLLM's runner is not as known.
    """
    require(*reliances.RUNNER_V2)
    runner_class = load(reliances.V2_RUNNER)
    wrap_lifecycle(runner_class, "v2", lambda _: None)
    execute_model = runner_class.execute_model
    sample = runner_class.sample

    @functools.wraps(execute_model)
    def execute_model_and_register(self: Any, scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
        if self.toploc_worker is not None:
            before_step(self.toploc_worker, scheduler_output)
        return execute_model(self, scheduler_output, *args, **kwargs)

    @functools.wraps(sample)
    def record_and_sample(self: Any, hidden_states: torch.Tensor, input_batch: Any, *args: Any, **kwargs: Any) -> Any:
        if self.toploc_worker is not None:
            self.toploc_worker.record(_step(hidden_states, input_batch))
        return sample(self, hidden_states, input_batch, *args, **kwargs)

    runner_class.execute_model = execute_model_and_register
    runner_class.sample = record_and_sample


def _step(hidden_states: torch.Tensor, batch: Any) -> Step:
    num_requests = batch.num_reqs
    return Step(
        request_ids=batch.req_ids,
        first_positions=batch.num_computed_tokens_np[:num_requests],
        starts=batch.query_start_loc_np[: num_requests + 1],
        hidden_states=hidden_states,
        positions=batch.positions,
        input_ids=batch.input_ids,
    )
