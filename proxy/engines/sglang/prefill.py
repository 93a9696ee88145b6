"""SGLang as verification asks for it: renders requests by its own routes, and runs prompts with answers."""

from __future__ import annotations

from contextlib import aclosing
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import HTTPException
from sglang.srt.managers.io_struct import GenerateReqInput

from toploc.errors import ProofUnavailable
from toploc.tokens.masks import Constraint

from ...verify.engine import Busy
from ...verify.tokenizer import OwnTokenizer
from .call import name_of
from .rehearsal import Rehearsal
from .sampling import handed_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.datastructures import State

    from toploc.tokens.sampling import Sampling

    from ...settings import Launch
    from ...verify.engine import Health
    from .call import Call

prefilling: Final[ContextVar[dict[str, Any] | None]] = ContextVar("toploc_prefill", default=None)
"""The parameters of ours that the next request to the scheduler carries."""


class _Alive:
    """SGLang ends the whole server with an engine that died (its watchdog of child processes)."""

    errored: Final = False
    dead_error: Final[BaseException] = RuntimeError("the engine died")


class PrefillEngine(OwnTokenizer):
    """See `verify.engine.Engine`.

    Args:
        manager: the process's TokenizerManager, whose routes and queues these are.
        state: the application's, whose routes render prompts.

    Raises:
        UnsupportedEngine: this SGLang's routes are not where they are known to be.
    """

    def __init__(self, manager: Any, state: State, launch: Launch) -> None:
        config = manager.model_config
        self.health: Health = _Alive()
        self.model = launch.model
        self._name = launch.name
        self.vocab_size = int(config.vocab_size)
        self.context_length = int(config.context_len)
        # Of a prompt that is rehearsed all options are read from what the engine is handed.
        self.defaults: Mapping[str, Any] = {}
        super().__init__(manager.tokenizer, config.hf_eos_token_id or ())
        self.chat_template: str | Mapping[str, str] | None = getattr(self._tokenizer, "chat_template", None)
        self._manager = manager
        self._prefilling = 0
        self.rehearsal = Rehearsal(manager, state)
        self.reports: Literal["logprobs", "logits"] | None = "logprobs"

    def spelled(self, _: str, /) -> int:
        """Log-probabilities under grammars are held against nothing."""
        return 0

    @property
    def answering(self) -> bool:
        return len(self._manager.rid_to_state) > self._prefilling

    def adapters(self) -> Iterable[str]:
        return tuple(name_of(self._name, adapter) for adapter in getattr(self._manager, "lora_ref_cache", ()))

    def sampling_of(self, rendered: Call, asked: Sampling) -> Sampling:
        return handed_over(rendered.request, asked)

    def alternatives(self, _: Call) -> int:
        return 1

    async def constrain(self, _rendered: Call, _token_ids: Sequence[int], _alternative: int) -> Constraint:
        """Nothing is followed: what is not replayed from logits is named by `sampling_of`."""
        return Constraint()

    def adapter_of(self, rendered: Call) -> int | None:
        """SGLang has names for adapters and no numbers; all that counts here is whether there is one."""
        return None if rendered.adapter is None else 1

    async def prefill(self, name: str, token_ids: list[int], rendered: Call, extra_args: dict[str, Any]) -> None:
        request = GenerateReqInput(
            input_ids=token_ids,
            sampling_params={"max_new_tokens": 0, "temperature": 0.0},
            # Names a cache of its own: rows of a cached prefix would never be computed.
            extra_key=name,
            lora_path=rendered.adapter,
        )
        token = prefilling.set(extra_args)
        self._prefilling += 1
        try:
            async with aclosing(self._manager.toploc_generate(request, None)) as outputs:
                async for _ in outputs:
                    pass
        except HTTPException as error:
            if error.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise Busy(str(error.detail)) from error
            raise
        except ValueError as error:
            # What this server does not take says nothing about another.
            raise ProofUnavailable("not_taken", str(error)[:200]) from error
        finally:
            self._prefilling -= 1
            prefilling.reset(token)
