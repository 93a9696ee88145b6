"""What both adapters tell of requests before a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

    from ....worker import Observer


def before_step(observer: Observer, scheduler_output: SchedulerOutput) -> None:
    """Lets go of finished requests, then registers those sent for the first time, or again after preemption.

    In this order, since an id may be in both lists. Between the two come other weights, if any were loaded.
    """
    if scheduler_output.finished_req_ids:
        observer.finished(scheduler_output.finished_req_ids)
    observer.weights_settled()
    for request in scheduler_output.scheduled_new_reqs:
        params = request.sampling_params
        if params is not None and params.extra_args:
            prompt = request.prompt_token_ids
            observer.register(request.req_id, params.extra_args, None if prompt is None else len(prompt))
