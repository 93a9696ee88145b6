"""Adapter for vLLM's first model runner (vllm/v1/worker/gpu_model_runner.py), on GPUs and, by inheritance, CPUs.

Checked against vLLM 0.26.0 and 0.32.0. `execute_model` returns None and leaves `execute_model_state` behind exactly
when a forward pass for generation ran on a rank that has logits; warm-up and profiling never go through it. At that
point the rows are computed and nothing is sampled yet, and it is outside any CUDA graph.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import require_members, require_parameters
from .step import Step

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

    from ..settings import Settings


def install(settings: Settings) -> None:
    """Wraps the runner's methods in this process.

    Raises:
        UnsupportedEngine: this vLLM's runner is not as known.
    """
    from vllm.v1.worker import gpu_model_runner as module

    runner_class = module.GPUModelRunner
    require_parameters(runner_class.execute_model, "self", "scheduler_output")
    require_parameters(runner_class.initialize_kv_cache, "self", "kv_cache_config")
    require_members(module.ExecuteModelState, ["hidden_states", "scheduler_output"], "ExecuteModelState")

    initialize_kv_cache = runner_class.initialize_kv_cache
    execute_model = runner_class.execute_model

    @functools.wraps(initialize_kv_cache)
    def initialize_kv_cache_and_recorder(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize_kv_cache(self, *args, **kwargs)
        if getattr(self, "toploc_worker", None) is None:
            require_members(self, ["positions", "input_ids", "query_start_loc", "input_batch"], "GPUModelRunner")
            require_members(self.input_batch, ["req_ids", "num_computed_tokens_cpu"], "InputBatch")
            # Not before: vLLM 0.32's register_triton_kernel_overrides trips over llvmlite, which this imports.
            from ..worker import is_output_rank, start_worker

            generates = is_output_rank() and not self.is_pooling_model
            self.toploc_worker = start_worker(settings, self.vllm_config, "v1", self.device) if generates else None

    @functools.wraps(execute_model)
    def execute_model_and_record(self: Any, scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
        worker = self.toploc_worker
        if worker is None:
            return execute_model(self, scheduler_output, *args, **kwargs)
        worker.before_step(scheduler_output)
        output = execute_model(self, scheduler_output, *args, **kwargs)
        if output is None and self.execute_model_state is not None:
            worker.record(_step(self))
        worker.after_step(scheduler_output.finished_req_ids)
        return output

    runner_class.initialize_kv_cache = initialize_kv_cache_and_recorder
    runner_class.execute_model = execute_model_and_record


def _step(runner: Any) -> Step:
    batch = runner.input_batch
    num_requests = batch.num_reqs
    # Read here, as these buffers are written again when the next step is prepared.
    offsets = runner.query_start_loc.np[: num_requests + 1].astype(np.int64)
    return Step(
        request_ids=batch.req_ids[:num_requests],
        first_positions=batch.num_computed_tokens_cpu[:num_requests].astype(np.int64),
        num_rows=np.diff(offsets),
        offsets=offsets[:-1],
        hidden_states=runner.execute_model_state.hidden_states,
        positions=runner.positions,
        input_ids=runner.input_ids.gpu,
    )
