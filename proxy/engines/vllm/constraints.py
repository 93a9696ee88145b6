"""The options of sampling that the server's route hands to the engine, as the check on tokens reads them.

A route turns many fields of a request into few of `SamplingParams`: a named tool, a strict one and a JSON schema all
become a grammar. So what the engine is handed decides whether tokens can be replayed, and no name in the request.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toploc.errors import UnsupportedEngine
from toploc.tokens.masks import BITS, Constraint, Forbidden, MaskTable, TooManyMasks, is_left, row_of, without
from toploc.tokens.sampling import Sampling

from ...channel.tag import EXTRA_ARG
from .budgets import Budgets
from .grammars import Grammars, Uncompiled, Unfollowed, backends_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    from .budgets import Budget
    from .call import Call
    from .grammars import Followed

OPTIONS: Final = tuple(Sampling.model_fields.keys() - {"seed", "sampler", "other"})
"""Fields that `Sampling` and `SamplingParams` have under one name."""

GRAMMAR, ALLOWED, BAD_WORDS = "structured_outputs", "allowed_token_ids", "bad_words"
BUDGET: Final = "thinking_token_budget"
WATERMARKING: Final = "watermarking"

CONSTRAINTS: Final = (
    GRAMMAR,
    ALLOWED,
    BAD_WORDS,
    BUDGET,
    WATERMARKING,
    "trace_decode_token_ids",
    "logits_processors",
)
"""Fields of `SamplingParams`, of any version of vLLM, that change which tokens may be chosen, beside the options."""

TRANSFERS: Final = frozenset((EXTRA_ARG, "kv_transfer_params", "ec_transfer_params"))
"""Extra arguments that say where rows come from. All others are for processors of logits."""

BEFORE_THE_ENGINE: Final = frozenset(("use_beam_search",))
"""Constraints that a route carries out by itself, with calls of the engine that do not show them."""

FOLLOW_SECONDS: Final = 60.0
"""To follow one answer, after its grammar is compiled. Stops ambiguous grammars, which take a second for a token."""


class Constraints:
    """Follows answers through grammars, allowed ids, bad words and thinking budgets, one after another on a thread of
    its own."""

    def __init__(self, config: VllmConfig) -> None:
        self._words = -(-int(config.model_config.get_vocab_size()) // BITS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="toploc-constraints")
        self.followed: frozenset[str] = frozenset((ALLOWED, BAD_WORDS))
        """Names of the constraints that are followed."""
        self._grammars: Grammars | None = None
        try:
            self._grammars = Grammars(config)
            self.followed |= {GRAMMAR}
        except UnsupportedEngine:
            pass  # an older vLLM: grammars are named, and skipped
        self._budgets: Budgets | None = None
        try:
            self._budgets = Budgets(config)
            self.followed |= {BUDGET}
        except UnsupportedEngine:
            pass  # as grammars

    def alternatives(self, call: Call) -> int:
        """How many sets of masks this call's answers may have been drawn under: by one grammar back end or another."""
        if call.request is None or call.request.sampling_params.structured_outputs is None:
            return 1
        return len(backends_of(call.request)) if GRAMMAR in self.followed else 1

    async def of(self, call: Call, token_ids: Sequence[int], alternative: int) -> Constraint:
        """What came of following these tokens."""
        if call.request is None or not any(_is_set(call.sampling_params, name) for name in self.followed):
            return Constraint()
        work = partial(self._follow, call.request, token_ids, alternative)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _follow(self, request: EngineCoreRequest, token_ids: Sequence[int], alternative: int) -> Constraint:
        """By the first rule of a budget that leaves the answer, if it has one."""
        found = Constraint()
        for budget in self._rules(request):
            found = self._follow_under(budget, request, token_ids, alternative)
            if found.forbidden is None or found.forbidden.option != BUDGET:
                break
        return found

    def _rules(self, request: EngineCoreRequest) -> Iterable[Budget | None]:
        is_bound = self._budgets is not None and _is_set(request.sampling_params, BUDGET)
        return self._budgets.rules(request) if self._budgets is not None and is_bound else (None,)

    def _follow_under(
        self, budget: Budget | None, request: EngineCoreRequest, token_ids: Sequence[int], alternative: int
    ) -> Constraint:
        params = request.sampling_params
        table = MaskTable()
        try:
            grammar = None
            if self._grammars is not None and params.structured_outputs is not None:
                grammar = self._grammars.follow(request, alternative)
            followed = _Following(params, grammar, budget, self._words)
            deadline = time.monotonic() + FOLLOW_SECONDS
            for place in range(len(token_ids)):
                if time.monotonic() > deadline:
                    raise Unfollowed(f"following the answer takes longer than {FOLLOW_SECONDS:g} s")
                option = followed.add(table, token_ids, place)
                if option is not None:
                    return Constraint(forbidden=Forbidden(place, option))
        except Uncompiled as error:
            # No server has masked by a back end that does not take the grammar.
            return Constraint(forbidden=Forbidden(0, GRAMMAR)) if alternative else Constraint(problem=str(error))
        except (Unfollowed, TooManyMasks) as error:
            return Constraint(problem=str(error))
        return Constraint(table.masks())


class _Following:
    """The masks of one answer, in vLLM's order: the grammar's, then allowed ids, then bad words, then the token that a
    thinking budget forces, whatever the others forbid (`vllm/v1/worker/gpu_model_runner.py`,
    `vllm/v1/sample/sampler.py`)."""

    def __init__(self, params: SamplingParams, grammar: Followed | None, budget: Budget | None, words: int) -> None:
        self._grammar = grammar
        self._budget = budget
        self._words = words
        allowed = params.allowed_token_ids
        self._allowed = row_of(np.array(allowed), words) if allowed else None
        self._bad = params.bad_words_token_ids or []

    def add(self, table: MaskTable, token_ids: Sequence[int], place: int) -> str | None:
        """Puts the masks of a place into the table and goes on; the option that forbids its token, if one does.

        Raises Unfollowed where nothing at all is left, of which vLLM draws something.
        """
        raw = None if self._grammar is None else self._whole(self._grammar.mask())
        forced = None if self._budget is None else self._budget.forced()
        processed = self._combined(raw, banned(self._bad, token_ids, place))
        if forced is not None:
            processed = row_of(np.array([forced]), self._words)
        token = token_ids[place]
        if processed is not None and not processed.any():
            raise Unfollowed("the request's options leave no token")
        if not is_left(processed, token):
            if forced is not None:
                return BUDGET
            if not is_left(raw, token):
                return GRAMMAR
            return BAD_WORDS if is_left(self._allowed, token) else ALLOWED
        table.add(raw, processed)
        if self._budget is not None:
            self._budget.accept(token)
        if self._grammar is not None:
            self._grammar.accept(token)
        return None

    def _whole(self, mask: NDArray[np.int32]) -> NDArray[np.int32]:
        """Of the whole vocabulary: back ends may know a part of it, and leave the rest."""
        whole = np.full(self._words, -1, dtype=np.int32)
        whole[: len(mask)] = mask[: self._words]
        return whole

    def _combined(self, raw: NDArray[np.int32] | None, out: Sequence[int]) -> NDArray[np.int32] | None:
        if self._allowed is None and not out:
            return raw
        row = np.full(self._words, -1, dtype=np.int32) if raw is None else raw.copy()
        if self._allowed is not None:
            row &= self._allowed
        for token in out:
            without(row, token)
        return row


def banned(bad_words: Sequence[Sequence[int]], token_ids: Sequence[int], place: int) -> list[int]:
    """Last tokens of the bad words whose other tokens stand before a place (`vllm/v1/sample/ops/bad_words.py`)."""
    return [
        word[-1]
        for word in bad_words
        if len(word) <= place + 1 and [*token_ids[place + 1 - len(word) : place]] == [*word[:-1]]
    ]


def handed_over(
    params: SamplingParams, asked: Sampling, followed: frozenset[str] = frozenset(), *, watermarks: bool = False
) -> Sampling:
    """The options of `params`, with the seed and the sampler of `asked`, which is read from the request itself.

    `followed`: constraints that are replayed. With `watermarks` the engine has them, and a request that says nothing of
    them gets them (`watermarking` None of SamplingParams, vLLM 0.30 on).

    Raises pydantic's ValidationError for options that vLLM would refuse.
    """
    given: dict[str, Any] = {name: getattr(params, name) for name in OPTIONS if getattr(params, name, None) is not None}
    named = [
        *constraints_of(params, watermarks=watermarks),
        *(name for name in asked.other if name in BEFORE_THE_ENGINE),
    ]
    other = tuple(name for name in named if name not in followed)
    return Sampling.model_validate({**given, "seed": asked.seed, "sampler": asked.sampler, "other": other})


def constraints_of(params: SamplingParams, *, watermarks: bool = False) -> tuple[str, ...]:
    """Names of the constraints that the engine is handed: those that are not off, and the arguments of processors."""
    named = [name for name in CONSTRAINTS if _is_set(params, name)]
    if watermarks and getattr(params, WATERMARKING, None) is None:
        named.append(WATERMARKING)
    return (*named, *sorted((params.extra_args or {}).keys() - TRANSFERS))


def _is_set(params: SamplingParams, name: str) -> bool:
    """Whether a constraint is not off. A budget of no tokens is one."""
    value = getattr(params, name, None)
    return value is not None if name == BUDGET else bool(value)
