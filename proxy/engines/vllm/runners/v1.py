"""Adapter for vLLM's first model runner (vllm/v1/worker/gpu_model_runner.py), on GPUs and, by inheritance, CPUs.

Checked against vLLM 0.26.0 and 0.32.0. `execute_model` returns None and leaves `execute_model_state` behind exactly
when a forward pass for generation ran on a rank that has logits; warm-up and profiling never go through it. At that
point the rows are computed and nothing is sampled yet, and it is outside any CUDA graph.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ....capture.step import Step
from ...guards import load, require, require_members
from .. import reliances
from .lifecycle import wrap_lifecycle
from .requests import before_step

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput


def install() -> None:
    """Wraps the runner's methods in this process.

    Raises:
        UnsupportedEngine: this vLLM's runner is not as known.
    """
    require(*reliances.RUNNER_V1)
    runner_class = load(reliances.V1_RUNNER)
    wrap_lifecycle(runner_class, "v1", _check)
    execute_model = runner_class.execute_model

    @functools.wraps(execute_model)
    def execute_model_and_record(self: Any, scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
        worker = self.toploc_worker
        if worker is not None:
            before_step(worker, scheduler_output)
        output = execute_model(self, scheduler_output, *args, **kwargs)
        if worker is not None and output is None and self.execute_model_state is not None:
            worker.record(_step(self))
        return output

    runner_class.execute_model = execute_model_and_record


def _check(runner: Any) -> None:
    require_members(runner, reliances.V1_RUNNER)
    require_members(runner.input_batch, reliances.V1_BATCH)


def _step(runner: Any) -> Step:
    batch = runner.input_batch
    num_requests = batch.num_reqs
    return Step(
        request_ids=batch.req_ids[:num_requests],
        first_positions=batch.num_computed_tokens_cpu[:num_requests],
        starts=runner.query_start_loc.np[: num_requests + 1],
        hidden_states=runner.execute_model_state.hidden_states,
        positions=runner.positions,
        input_ids=runner.input_ids.gpu,
    )
