"""Weights that are loaded while a scheduler runs, between two of its steps."""

from __future__ import annotations

import functools
from typing import Any, Final

from ...guards import load
from .. import reliances

LOADING: Final = (
    "update_weights_from_disk",
    "update_weights_from_distributed",
    "update_weights_from_tensor",
    "update_weights_from_ipc",
)
"""Requests of `/update_weights_from_…`, as a scheduler serves them."""


def install() -> None:
    """Has them tell of it."""
    updater: Any = load(reliances.WEIGHT_UPDATER)
    for name in LOADING:
        setattr(updater, name, _loading(getattr(updater, name)))


def _loading(method: Any) -> Any:
    @functools.wraps(method)
    def tell_and_load(self: Any, *args: Any, **kwargs: Any) -> Any:
        worker = self.tp_worker.model_runner.toploc_worker
        if worker is not None:
            worker.weights_changing()
        return method(self, *args, **kwargs)

    return tell_and_load
