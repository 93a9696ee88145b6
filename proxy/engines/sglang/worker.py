"""A scheduler as the model's worker, as SGLang tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sglang

from ...capture.sizes import Shape
from ...worker import Description
from .mode import mode_of
from .runners.ranks import engine_of

if TYPE_CHECKING:
    from ...settings import Settings


def shape_of(runner: Any, settings: Settings) -> Shape:
    """What the ring has to be made for. SGLang admits thousands of requests where nobody says how many, so the ring is
    for as many as the settings say."""
    config = runner.model_config
    return Shape(
        hidden_size=int(config.hidden_size),
        dtype=config.dtype,
        sequences=settings.launch.captures if settings.launch else 1,
        draft_tokens=0,
    )


def describe(scheduler: Any, runner: Any, settings: Settings) -> Description:
    """The worker that this scheduler is."""
    return Description(
        shape=shape_of(runner, settings),
        version=sglang.__version__,
        runner="",
        engine=engine_of(scheduler),
        # What SGLang draws from a seed cannot be replayed yet.
        sampler=None,
        mode=mode_of(runner),
    )
