"""Thinking budgets: by vLLM's own code for model runner V1, and as its kernel for model runner V2 says it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from toploc_proxy.engines.vllm.budgets import Budgets, _ByRunnerV2
from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.sample import thinking_budget

START, END = 1, 2


def reasoning(start: list[int], end: list[int], natural: list[int] | None = None) -> Any:
    return SimpleNamespace(
        reasoning_start_token_ids=start, reasoning_end_token_ids=end, natural_reasoning_end_token_ids=natural or end
    )


class _Pointer:
    def __init__(self, values: list[Any], at: int = 0) -> None:
        self.values, self.at = values, at

    def __add__(self, offset: int) -> _Pointer:
        return _Pointer(self.values, self.at + offset)


class _Number(int):
    def to(self, _: Any) -> _Number:
        return self


class _Language:
    """Of Triton what the kernel for one row takes; without Triton its function is plain Python."""

    int64 = None
    range = static_range = range

    def __init__(self, row: int) -> None:
        self._row = row

    def program_id(self, _: int) -> _Number:
        return _Number(self._row)

    def load(self, pointer: _Pointer) -> Any:
        return pointer.values[pointer.at]

    def store(self, pointer: _Pointer, value: Any) -> None:
        pointer.values[pointer.at] = value


def forced_by_the_kernel(config: Any, budget: int, token_ids: list[int], monkeypatch: pytest.MonkeyPatch) -> int | None:
    """All tokens stand where the kernel reads drafts, since those before are in a cache of another kernel."""
    start, end, natural = (
        config.reasoning_start_token_ids,
        config.reasoning_end_token_ids,
        config.natural_reasoning_end_token_ids,
    )
    count = len(token_ids)
    logits = [0.0] * 10
    rows = count + 1
    monkeypatch.setattr(thinking_budget, "tl", _Language(count))
    thinking_budget._thinking_budget_kernel(
        _Pointer(logits),
        0,
        _Pointer([0] * rows),
        _Pointer([budget]),
        _Pointer([]),
        0,
        _Pointer([0]),
        _Pointer([0, *token_ids]),
        _Pointer([count] * rows),
        _Pointer([-1]),
        _Pointer([-1]),
        *map(_Pointer, (start, natural, end)),
        len(start),
        len(natural),
        len(end),
    )
    return next((token for token, logit in enumerate(logits) if logit), None)


@pytest.mark.parametrize(
    "config",
    [
        reasoning([START], [END]),
        reasoning([START], [3, 4, END], [END]),
        reasoning([START, 5], [3, 3, END], [END, 5]),
        reasoning([START], [END, END], [END]),
    ],
    ids=["single", "with words before the end", "of two tokens", "twice"],
)
def test_as_the_kernel_of_model_runner_v2(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(4)
    seen = set()
    for _ in range(300):
        budget = drawn.randrange(6)
        prompt, answer = ([drawn.randrange(1, 6) for _ in range(drawn.randrange(8))] for _ in range(2))
        rule = _ByRunnerV2(config, budget, prompt)
        for place, token in enumerate(answer):
            token_ids = [*prompt, *answer[:place]]
            expected = forced_by_the_kernel(config, budget, token_ids, monkeypatch)
            assert rule.forced() == expected, (budget, token_ids)
            seen.add(expected)
            rule.accept(token)
    assert seen >= {None, *config.reasoning_end_token_ids}


def walk(rule: Any, token_ids: list[int]) -> list[int | None]:
    forced = []
    for token in token_ids:
        forced.append(rule.forced())
        rule.accept(token)
    return forced


@pytest.mark.parametrize(
    ("budget", "prompt", "answer", "forced"),
    [
        (2, [9], [START, 7, 7, END, 7], {3: END}),
        (2, [9, START], [7, 7, END, 7], {2: END}),
        (2, [9, START, 7], [7, END, 7], {1: END}),
        (0, [9, START], [END, 7, 7], {0: END}),
        (3, [9, START], [7, END, 7, 7, 7], {}),
        (2, [9], [7, 7, 7, 7], {}),
    ],
)
def test_both_rules_force_the_end(budget: int, prompt: list[int], answer: list[int], forced: dict[int, int]) -> None:
    budgets = Budgets(SimpleNamespace(reasoning_config=reasoning([START], [END])))  # type: ignore[arg-type]
    params = SamplingParams(thinking_token_budget=budget)
    request: Any = SimpleNamespace(prompt_token_ids=prompt, sampling_params=params)
    for rule in budgets.rules(request):
        found = walk(rule, answer)
        assert {place: token for place, token in enumerate(found) if token is not None} == forced, rule
