"""What happens while a scheduler comes up: memory first, then the recorder."""

from __future__ import annotations

import functools
from typing import Any

import torch

from ....log import logger
from ....settings import Settings
from ...guards import load
from .. import reliances
from ..ending import or_exit


def install() -> None:
    """Wraps `ModelRunner.load_model` and `Scheduler.init_model_worker` in this process."""
    runner_class: Any = load(reliances.MODEL_RUNNER)
    scheduler: Any = load(reliances.SCHEDULER_CLASS)
    load_model, init_model_worker = runner_class.load_model, scheduler.init_model_worker
    runner_class.toploc_ring = None
    runner_class.toploc_head = None

    @functools.wraps(load_model)
    def load_model_and_take_memory(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load_model(self, *args, **kwargs)
        # The KV cache gets what is free from here on, less a share.
        if not self.is_draft_worker:
            _take_memory(self)
        return result

    @functools.wraps(init_model_worker)
    def init_model_worker_and_recorder(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = init_model_worker(self, *args, **kwargs)
        runner = self.tp_worker.model_runner
        settings = Settings.from_environ()
        if settings is not None and runner.toploc_ring is not None:
            with or_exit():
                self.toploc_worker = runner.toploc_worker = _start(self, runner, settings)
        return result

    runner_class.load_model = load_model_and_take_memory
    scheduler.init_model_worker = init_model_worker_and_recorder


def _take_memory(runner: Any) -> None:
    """For captures and the output head. A model that cannot be proven ends the scheduler."""
    settings = Settings.from_environ()
    from .ranks import is_output_rank

    if settings is None or not is_output_rank():
        return
    from ....capture.sizes import make_ring
    from ..head import make_head
    from ..worker import shape_of

    with or_exit():
        runner.toploc_ring = ring = make_ring(shape_of(runner, settings), torch.device(runner.device))
        runner.toploc_head = make_head(runner)
    taken = ring.num_slots * ring.num_rows * runner.model_config.hidden_size * 2 / 1e6
    logger.info("toploc: %d slots for answers in progress take at most %.0f MB", ring.num_slots, taken)


def _start(scheduler: Any, runner: Any, settings: Settings) -> Any:
    from ....worker import start_worker
    from ..worker import describe

    device = torch.device(runner.device)
    return start_worker(settings, describe(scheduler, runner, settings), runner.toploc_ring, device, runner.toploc_head)
