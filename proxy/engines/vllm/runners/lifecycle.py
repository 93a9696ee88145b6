"""What both adapters do while a model runner comes up: memory first, then the recorder."""

from __future__ import annotations

import functools
import inspect
import weakref
from typing import TYPE_CHECKING, Any

from ....settings import Settings
from .changes import watch_weights
from .refused import refuse_configuration, refuse_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm.config import VllmConfig

    from ....worker import Observer


def wrap_lifecycle(runner_class: Any, name: str, check: Callable[[Any], None]) -> None:
    """Gives every runner of this class the attribute `toploc_worker`, None where it captures nothing.

    A runner captures if there are settings in the environment when its engine is made; an engine of plain vLLM beside
    one of ours, in one process, has none.

    Args:
        runner_class: vLLM's `GPUModelRunner`, of either kind.
        name: how the runner is called in `GET /v1/toploc`.
        check: raises UnsupportedEngine if a runner lacks what the adapter reads.
    """
    initialize = runner_class.__init__
    load_model = runner_class.load_model
    initialize_kv_cache = runner_class.initialize_kv_cache
    parameters = inspect.signature(initialize_kv_cache)
    runner_class.toploc_loaded = False
    runner_class.toploc_ring = None
    runner_class.toploc_head = None
    runner_class.toploc_worker = None

    @functools.wraps(initialize)
    def refuse_or_initialize(self: Any, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        if Settings.from_environ() is not None:
            refuse_configuration(vllm_config)
        initialize(self, vllm_config, *args, **kwargs)

    @functools.wraps(load_model)
    def load_model_and_take_memory(self: Any, *args: Any, **kwargs: Any) -> None:
        load_model(self, *args, **kwargs)
        # vLLM 0.26 subtracts what loading took from the memory it gives to the KV cache
        # (vllm/v1/worker/gpu_worker.py determine_available_memory); later versions measure.
        self.model_memory_usage += _take_memory(self)

    @functools.wraps(initialize_kv_cache)
    def initialize_kv_cache_and_recorder(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize_kv_cache(self, *args, **kwargs)
        # To measure the memory of CUDA graphs, with a cache that is thrown away.
        if parameters.bind(self, *args, **kwargs).arguments.get("is_profiling"):
            return
        # The CPU's runner has a load_model of its own.
        _take_memory(self)
        settings = Settings.from_environ()
        if settings is not None and self.toploc_worker is None and _captures(self):
            check(self)
            self.toploc_worker = _start(self, settings, name)
            watch_weights(self.get_model(), self.toploc_worker)

    runner_class.__init__ = refuse_or_initialize
    runner_class.load_model = load_model_and_take_memory
    runner_class.initialize_kv_cache = initialize_kv_cache_and_recorder


def _captures(runner: Any) -> bool:
    # Not imported with this module: vLLM 0.32's register_triton_kernel_overrides, which comes between, trips over
    # llvmlite, which the recorder's modules load.
    from .ranks import is_output_rank

    return is_output_rank() and not runner.is_pooling_model


def _take_memory(runner: Any) -> int:
    """Bytes that captures and the output head take on this rank, the first time; every rank comes here."""
    settings = Settings.from_environ()
    if settings is None or runner.toploc_loaded or runner.is_pooling_model:
        return 0
    runner.toploc_loaded = True
    refuse_model(runner.get_model())
    from .ranks import is_last_stage

    taken = 0
    if is_last_stage():
        from ..head import make_head

        config = runner.vllm_config
        # Not the runner itself, whose end ends what holds the head.
        of = weakref.proxy(runner)
        adapters = None if config.lora_config is None else lambda: of.lora_manager._adapter_manager.list_adapters()
        runner.toploc_head = make_head(runner.get_model(), config, copied=settings.copy_head, adapters=adapters)
        taken += runner.toploc_head.num_bytes if runner.toploc_head else 0
    if _captures(runner):
        from ....capture.sizes import make_ring
        from ..worker import shape_of

        runner.toploc_ring = make_ring(shape_of(runner.vllm_config), runner.device)
        taken += runner.toploc_ring.num_bytes
    return taken


def _start(runner: Any, settings: Settings, name: str) -> Observer:
    from ....worker import start_worker
    from ..mode import mode_of
    from ..sampler import name_sampler
    from ..worker import describe

    config, device = runner.vllm_config, runner.device
    sampler = name_sampler(runner, name, config, device)
    described = describe(config, name, sampler, mode_of(runner))
    return start_worker(settings, described, runner.toploc_ring, device, runner.toploc_head)
