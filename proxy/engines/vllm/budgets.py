"""Thinking budgets: the token that vLLM forces where an answer has thought for as long as its request allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from vllm.v1.sample.logits_processor.interface import BatchUpdate

from ..guards import load, require_members
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllm.config import VllmConfig
    from vllm.v1.engine import EngineCoreRequest

CPU: Final = torch.device("cpu")


class Budget(Protocol):
    """One answer on its way under a budget."""

    def forced(self) -> int | None:
        """The only token that may come next; None if there is no such."""

    def accept(self, token: int) -> None:
        """Goes on by one token."""


class Budgets:
    """Those of requests, each by the rules that an engine may have kept to.

    Raises:
        UnsupportedEngine: this vLLM's part is not of the form that is known.
    """

    def __init__(self, config: VllmConfig) -> None:
        self._holder = load(reliances.BUDGETS)
        require_members(self._holder, reliances.BUDGETS)
        self._reasoning: Any = config.reasoning_config

    def rules(self, request: EngineCoreRequest) -> Iterator[Budget]:
        """By model runner V1 and by V2: they tell the end of thinking apart in different ways. Of a request that vLLM's
        input processor has checked."""
        prompt = request.prompt_token_ids or []
        yield _ByRunnerV1(self._holder, self._reasoning, request.sampling_params, prompt)
        yield _ByRunnerV2(self._reasoning, request.sampling_params.thinking_token_budget, prompt)


class _ByRunnerV1:
    """vLLM's own (`vllm/v1/sample/thinking_budget_state.py`), for a batch of one, without drafts."""

    def __init__(self, holder: Any, reasoning: Any, params: Any, prompt: Sequence[int]) -> None:
        self._said: list[int] = []
        self._holder = holder(reasoning, 1, 0, CPU, False)
        added = [(0, params, [*prompt], self._said)]
        self._holder.sync_batch(BatchUpdate(batch_size=1, removed=[], added=added, moved=[]))
        self._logits = torch.zeros(1, max(reasoning.reasoning_end_token_ids) + 1)

    def forced(self) -> int | None:
        self._holder.update_state([self._said], None)
        self._holder.apply_to_logits(self._logits, False, None)
        token = int(self._logits.argmax())
        if self._logits[0, token] == 0:
            return None
        self._logits[0, token] = 0
        return token

    def accept(self, token: int) -> None:
        self._said.append(token)


class _ByRunnerV2:
    """After `vllm/v1/worker/gpu/sample/thinking_budget.py`, a kernel that runs on GPUs alone (vLLM 0.28 on): thinking
    is what follows the last start after which there is no natural end. A forced end that has begun is gone on with."""

    def __init__(self, reasoning: Any, budget: int, prompt: Sequence[int]) -> None:
        self._start, self._end = reasoning.reasoning_start_token_ids, reasoning.reasoning_end_token_ids
        self._natural_end = getattr(reasoning, "natural_reasoning_end_token_ids", None) or self._end
        self._budget = budget
        self._ids: list[int] = []
        self._started = self._ended = -1
        for token in prompt:
            self.accept(token)

    def forced(self) -> int | None:
        if self._started <= self._ended or len(self._ids) - (self._started + len(self._start)) < self._budget:
            return None
        begun = next((n for n in range(len(self._end) - 1, 0, -1) if self._ids[-n:] == self._end[:n]), 0)
        return int(self._end[begun])

    def accept(self, token: int) -> None:
        self._ids.append(token)
        for marks, name in ((self._start, "_started"), (self._natural_end, "_ended")):
            if self._ids[-len(marks) :] == marks:
                setattr(self, name, len(self._ids) - len(marks))
