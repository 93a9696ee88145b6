"""vLLM's `LLM`, whose outputs carry proofs, and which verifies rollouts."""

from __future__ import annotations

import weakref
from argparse import Namespace
from contextlib import ExitStack
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Self

import vllm

from toploc.errors import UnsupportedEngine

from ....answers.context import Served
from ....channel.addresses import channel_directory
from ....channel.client import Channel
from ....settings import Settings
from ...guards import require
from .. import reliances
from ..serve.refusals import refuse_unsupported
from .background import Background
from .engine import ProvingEngine
from .rollout import Rollout
from .start import environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from toploc.report import Report

    from ....channel.messages import Welcome
    from .verification import Verification

FINALIZE_SECONDS: Final = 120.0
"""For a worker's proofs: nobody waits for a single answer."""

CAPTURE_SECONDS: Final = 1e9
"""An answer may wait for the longest of its prompt, or for `wait_for_completion`; all end with the engine."""


class LLM(vllm.LLM):  # type: ignore[misc]
    """`vllm.LLM`: the same constructor, the same methods.

    Each `output.outputs[i]` of `generate`, `chat` and `wait_for_completion` has `toploc_proofs`, a
    `toploc.protocol.ToplocProofs` of that choice alone, numbered 0; where there are no proofs, its `error` says why.

    It ends with `close`, at the end of a `with` statement, or as vLLM's does, with its last reference. Engines of plain
    vLLM in the same process are as they would be without it, before, beside and after.

    Args:
        model: as vLLM's, and so are all other options.
        toploc_seed_requests: draw sampled answers from a random seed where the parameters have none, so that a
            verifier can replay them.
        toploc_thresholds: bounds that `verify` holds answers against: a name in configs/thresholds or a YAML file
            (default: those calibrated for a model of this name and dtype, else the paper's).
        toploc_copy_head: with tensor parallelism, keep the whole output head on one rank, so that `verify` checks
            tokens too.

    Raises:
        UnsupportedEngine: answers could not be proven with these options, or this vLLM is not one that is known.
        InvalidThresholds: of a file that is none.
    """

    def __init__(
        self,
        model: str,
        *args: Any,
        toploc_seed_requests: bool = False,
        toploc_thresholds: str | None = None,
        toploc_copy_head: bool = False,
        **options: Any,
    ) -> None:
        refuse_unsupported(Namespace(**options, toploc_seed_requests=toploc_seed_requests))
        require(*reliances.OFFLINE)
        with ExitStack() as stack:
            directory = stack.enter_context(channel_directory())
            settings = Settings(
                channel=directory,
                finalize_timeout=FINALIZE_SECONDS,
                capture_ttl=CAPTURE_SECONDS,
                seed_requests=toploc_seed_requests,
                thresholds=toploc_thresholds,
                copy_head=toploc_copy_head,
            )
            with environment(settings):
                super().__init__(model, *args, **options)
            self._toploc_settings = settings
            self._toploc_verification: Verification | None = None
            if self.runner_type == "generate":
                self._connect(stack)
            self._toploc_end = weakref.finalize(self, stack.pop_all().close)

    def _connect(self, stack: ExitStack) -> None:
        """Every worker says who it is, and the engine proves from here on. `stack` ends what is begun."""
        # Not before the engine is up: vLLM 0.32 on CPUs trips over llvmlite, which these load (runners/lifecycle.py).
        from ....application import engine_of, refuse_seeds
        from ....verify.verifier import EngineVerifier
        from .calls import Calls
        from .verification import Verification

        made: Any = self.__dict__["llm_engine"]
        settings, config = self._toploc_settings, made.vllm_config
        background = Background()
        stack.callback(background.close)
        channel, welcome = background.run(_open(settings))
        stack.callback(lambda: background.run(_close(channel)))
        refuse_seeds(settings, welcome)
        described = engine_of("vllm", welcome)
        name = _name_of(config.model_config)
        served = Served(name, welcome.dtype, welcome.rounded_from, welcome.sampler, described)
        calls = Calls(background, channel, served, settings.secret, welcome.slots, seed_requests=settings.seed_requests)
        self.llm_engine = engine = ProvingEngine.adopt(made, calls)
        # Without a tokenizer it proves, and verifies nothing.
        if not config.model_config.skip_tokenizer_init:
            verifier = partial(EngineVerifier, channel=channel, welcome=welcome, settings=settings, names=[name])
            self._toploc_verification = Verification(engine, background, partial(verifier, described=described))

    def verify(self, rollouts: Iterable[Rollout | tuple[Any, ...]]) -> list[Report]:
        """A report on each rollout, in their order; `verify_each` of all. A tuple is a `Rollout`'s arguments."""
        return [report for _, report in sorted(self.verify_each(rollouts), key=itemgetter(0))]

    def verify_each(self, rollouts: Iterable[Rollout | tuple[Any, ...]]) -> Iterator[tuple[int, Report]]:
        """A report on each rollout, with its place among them, as they are done.

        Rollouts are read as they are needed, and many prefills are in the engine at once. What is no proof at all is
        reported too (check `evidence`). Raises whatever the engine raises, and UnsupportedEngine for a model that does
        not generate, or has no tokenizer.
        """
        listed = (rollout if isinstance(rollout, Rollout) else Rollout(*rollout) for rollout in rollouts)
        return self.toploc_verification.reports(listed)

    @property
    def toploc_verification(self) -> Verification:
        """Raises UnsupportedEngine for a model that does not generate, or has no tokenizer."""
        if self._toploc_verification is None:
            raise UnsupportedEngine("toploc: only an engine that generates, and has a tokenizer, verifies")
        return self._toploc_verification

    def close(self) -> None:
        """Ends the engine and its processes. May be called again."""
        engine, self._toploc_verification = self.__dict__.pop("llm_engine", None), None
        if engine is not None:
            engine.engine_core.shutdown()
        self._toploc_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _open(settings: Settings) -> tuple[Channel, Welcome]:
    from ....application import handshake

    channel = Channel.connect(settings.channel, 1, settings.finalize_timeout)
    try:
        return channel, await handshake(channel)
    except BaseException:
        channel.close()
        raise


async def _close(channel: Channel) -> None:
    channel.close()


def _name_of(config: Any) -> str:
    """As `vllm serve` names a model without `--served-model-name`."""
    return str(getattr(config, "served_model_name", None) or config.model)
