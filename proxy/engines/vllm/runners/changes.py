"""What happens to a worker between two steps: other weights are loaded, its memory goes and comes back.

All of it runs on the thread that runs the steps (vllm/v1/worker/gpu_worker.py, by the engine's utility calls).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from ...guards import load
from .. import reliances

if TYPE_CHECKING:
    from ....worker import Observer

LOADING: Final = ("reload_weights", "start_weight_update", "update_weights", "finish_weight_update", "reset_weights")
"""Methods of a worker after which other weights answer. Older versions of vLLM have some of them."""

DISCARDING: Final = 2
"""The level of sleep from which no weights come back."""


def install() -> None:
    """Wraps the methods of vLLM's worker in this process. Raises UnsupportedEngine."""
    worker_class = load(reliances.GPU_WORKER)
    for name in LOADING:
        if (method := getattr(worker_class, name, None)) is not None:
            setattr(worker_class, name, _loading(method))
    worker_class.sleep = _sleeping(worker_class.sleep)
    worker_class.wake_up = _waking(worker_class.wake_up)


def watch_weights(model: Any, observer: Observer) -> None:
    """Has a model's own `load_weights` tell of it: extensions of workers call that, and none of the methods above."""
    load_weights = getattr(model, "load_weights", None)
    if load_weights is None:
        return

    @functools.wraps(load_weights)
    def load_weights_and_tell(*args: Any, **kwargs: Any) -> Any:
        observer.weights_changing()
        return load_weights(*args, **kwargs)

    model.load_weights = load_weights_and_tell


def _observer(worker: Any) -> Observer | None:
    """None of one that captures nothing, or is not up yet."""
    observer: Observer | None = getattr(getattr(worker, "model_runner", None), "toploc_worker", None)
    return observer


def _loading(method: Any) -> Any:
    @functools.wraps(method)
    def tell_and_load(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (observer := _observer(self)) is not None:
            observer.weights_changing()
        return method(self, *args, **kwargs)

    return tell_and_load


def _sleeping(sleep: Any) -> Any:
    @functools.wraps(sleep)
    def tell_and_sleep(self: Any, level: int = 1, *args: Any, **kwargs: Any) -> Any:
        if (observer := _observer(self)) is not None:
            observer.sleep()
            if level >= DISCARDING:
                observer.weights_changing()
        return sleep(self, level, *args, **kwargs)

    return tell_and_sleep


def _waking(wake_up: Any) -> Any:
    @functools.wraps(wake_up)
    def wake_and_tell(self: Any, tags: list[str] | None = None, *args: Any, **kwargs: Any) -> Any:
        result = wake_up(self, tags, *args, **kwargs)
        # The ring was allocated beside the weights, and lies in their pool.
        if (observer := _observer(self)) is not None and (tags is None or "weights" in tags):
            observer.wake()
        return result

    return wake_and_tell
