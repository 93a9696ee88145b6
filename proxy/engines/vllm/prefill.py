"""vLLM as verification asks for it: renders requests by its own routes, and runs prompts with answers."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

from vllm.sampling_params import RequestOutputKind, SamplingParams

from ...verify.engine import Busy
from ...verify.tokenizer import OwnTokenizer
from .constraints import Constraints, handed_over
from .media import with_media
from .rehearsal import Rehearsal
from .sampler import watermarks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.outputs import RequestOutput

    from toploc.tokens.masks import Constraint
    from toploc.tokens.sampling import Sampling

    from ...verify.engine import Health
    from .call import Call


REPORTS: Final[Mapping[str, Literal["logprobs", "logits"]]] = {"raw_logprobs": "logprobs", "raw_logits": "logits"}
"""By `--logprobs-mode`: what the model's own logits give."""


class PrefillEngine(OwnTokenizer):
    """See `verify.engine.Engine`.

    Args:
        generate: the engine's own, not the one that proves.
        state: the application's, whose routes render prompts.
        priority: of prefills, for a scheduler that has priorities.
    """

    def __init__(
        self,
        engine: EngineClient,
        generate: Callable[..., AsyncGenerator[RequestOutput, None]],
        state: State,
        priority: int,
    ) -> None:
        config = engine.vllm_config
        self.health: Health = engine
        self.model = str(config.model_config.model)
        self.vocab_size = int(config.model_config.get_vocab_size())
        self.context_length = int(config.model_config.max_model_len)
        self.defaults: Mapping[str, Any] = config.model_config.get_diff_sampling_param()
        ends = config.model_config.try_get_generation_config().get("eos_token_id")
        super().__init__(engine.renderer.get_tokenizer(), ends if isinstance(ends, list) else [ends])
        given = getattr(getattr(state, "openai_serving_chat", None), "chat_template", None)
        self.chat_template: str | Mapping[str, str] | None = given or self._tokenizer.chat_template
        self._generate = generate
        self.rehearsal = Rehearsal(state, engine)
        self._constraints = Constraints(config)
        self._texts: Counter[str] | None = None
        self.reports = REPORTS.get(str(config.model_config.logprobs_mode))
        self._watermarks = watermarks(config)
        self._models = getattr(state, "openai_serving_models", None)
        self._engine = engine
        self._prefilling = 0
        self._priority = priority if config.scheduler_config.policy == "priority" else 0

    def spelled(self, text: str, /) -> int:
        if self._texts is None:
            numbers = range(self.vocab_size)
            texts = Counter(self.decode([token], False) for token in numbers)
            # Of a token that is a part of a character vLLM may say nothing (vllm/v1/engine/logprobs.py).
            self._texts = texts + Counter({"": self.vocab_size}) + Counter(f"token_id:{token}" for token in numbers)
        return self._texts[text]

    @property
    def answering(self) -> bool:
        return len(self._engine.output_processor.request_states) > self._prefilling

    def adapters(self) -> Iterable[str]:
        return tuple(getattr(self._models, "lora_requests", ()))

    def sampling_of(self, rendered: Call, asked: Sampling) -> Sampling:
        followed = self._constraints.followed if rendered.request is not None else frozenset[str]()
        return handed_over(rendered.asked_params, asked, followed, watermarks=self._watermarks)

    def alternatives(self, rendered: Call) -> int:
        return self._constraints.alternatives(rendered)

    async def constrain(self, rendered: Call, token_ids: Sequence[int], alternative: int) -> Constraint:
        return await self._constraints.of(rendered, token_ids, alternative)

    def adapter_of(self, rendered: Call) -> int | None:
        return rendered.lora_request.lora_int_id if rendered.lora_request else None

    async def prefill(self, name: str, token_ids: list[int], rendered: Call, extra_args: dict[str, Any]) -> None:
        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            # Rows of a cached prefix would never be computed.
            skip_reading_prefix_cache=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=extra_args,
        )
        prompt = with_media({"type": "token", "prompt_token_ids": token_ids}, rendered.prompt)
        outputs = self._generate(prompt, params, name, lora_request=rendered.lora_request, priority=self._priority)
        self._prefilling += 1
        try:
            async with aclosing(outputs):
                async for _ in outputs:
                    pass
        except Exception as error:
            # GracefulHTTPError of vllm/exceptions.py, from vLLM 0.29 on.
            if getattr(error, "http_status", None) == HTTPStatus.SERVICE_UNAVAILABLE:
                raise Busy(str(error)) from error
            raise
        finally:
            self._prefilling -= 1
