"""Requests as a scheduler has them: their tags, the batches that they run in, and their end."""

from __future__ import annotations

import functools
from typing import Any

from ....channel.tag import EXTRA_ARG
from ...guards import load
from .. import reliances


def install() -> None:
    """Wraps `Req.__init__`, `Scheduler.run_batch` and `Scheduler.process_batch_result` in this process."""
    _take_tags()
    scheduler: Any = load(reliances.SCHEDULER_CLASS)
    scheduler.toploc_worker = None
    run_batch, process = scheduler.run_batch, scheduler.process_batch_result

    @functools.wraps(run_batch)
    def register_and_run(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        worker = self.toploc_worker
        if worker is not None:
            worker.weights_settled()
            if batch.forward_mode.is_extend():
                # A prefill's further chunks, and requests that were retracted, come again.
                for request in batch.reqs:
                    if request.toploc_tag is not None:
                        worker.register(request.rid, request.toploc_tag, len(request.origin_input_ids))
        return run_batch(self, batch, *args, **kwargs)

    @functools.wraps(process)
    def process_and_finish(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        result = process(self, batch, *args, **kwargs)
        worker = self.toploc_worker
        if worker is not None and (over := [request.rid for request in batch.reqs if request.finished()]):
            worker.finished(over)
        return result

    scheduler.run_batch = register_and_run
    scheduler.process_batch_result = process_and_finish


def _take_tags() -> None:
    """Out of the parameters of each request, where nothing else needs to know of them: before 0.5.23 a request with
    `custom_params` refers to itself through them, and is freed late."""
    request_class: Any = load(reliances.REQUEST)
    initialize = request_class.__init__

    @functools.wraps(initialize)
    def take_tag_and_initialize(
        self: Any, rid: Any, text: Any, input_ids: Any, sampling_params: Any, *args: Any, **kwargs: Any
    ) -> None:
        custom = sampling_params.custom_params
        self.toploc_tag = None
        if custom and EXTRA_ARG in custom:
            self.toploc_tag = {EXTRA_ARG: custom[EXTRA_ARG]}
            sampling_params.custom_params = {key: value for key, value in custom.items() if key != EXTRA_ARG} or None
        initialize(self, rid, text, input_ids, sampling_params, *args, **kwargs)

    request_class.__init__ = take_tag_and_initialize
