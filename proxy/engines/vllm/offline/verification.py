"""Rollouts held against prefills of the engine: what the engine shows of each, and the report on it."""

from __future__ import annotations

import asyncio
import queue
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from vllm.sampling_params import RequestOutputKind, SamplingParams

from toploc.checks.response import Ended, Rehearsed
from toploc.errors import MalformedEvidence
from toploc.evidence.leaves import compare
from toploc.evidence.strict_json import load_json
from toploc.report import Check, malformed, refused
from toploc.tokens.sampling import Sampling
from toploc.verifier.judge import judge
from toploc.verifier.rendering import prompt_of

from ....log import logger
from ....verify.engine import Claim, Scored
from ....verify.verifier import best_of
from ..call import Call
from ..prefill import PrefillEngine
from ..replay import Replayer, Unended

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
    from concurrent.futures import Future

    from vllm.lora.request import LoRARequest

    from toploc.evidence.evidence import Evidence
    from toploc.report import Report
    from toploc.verifier.judge import Computed, Policy

    from ....verify.verifier import EngineVerifier
    from .background import Background
    from .engine import ProvingEngine
    from .rollout import Rollout

    Events = queue.SimpleQueue["Prefill | int"]
    """Prefills to run, and the places of reports that are done."""

    Judging = Callable[[], Coroutine[Any, Any, Report]]
    """What makes a report."""

AT_ONCE: Final = 1024
"""Rollouts that are read ahead; how many are in the engine follows from their tokens (`Places`)."""

UNSAID: Final = SamplingParams()
"""In place of the parameters of a rollout that says none, and of those that no check is to read."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """One that the engine is to run; `done` is set on the loop that waits for it."""

    name: str
    token_ids: list[int]
    params: SamplingParams
    lora_request: LoRARequest | None
    done: asyncio.Future[None]

    def end(self) -> None:
        """From another thread."""
        self.done.get_loop().call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class RolloutEngine(PrefillEngine):
    """See `verify.engine.Engine`. Its prefills go to `events`, since the caller's thread steps the engine."""

    def __init__(self, engine: ProvingEngine) -> None:
        tasks = engine.get_supported_tasks()

        async def get_supported_tasks() -> Any:
            return tasks

        # What an engine's end raises is raised where it is stepped.
        seen: Any = SimpleNamespace(
            vllm_config=engine.vllm_config,
            model_config=engine.model_config,
            renderer=engine.renderer,
            input_processor=engine.input_processor,
            get_supported_tasks=get_supported_tasks,
            errored=False,
        )
        super().__init__(seen, self._hand_over, SimpleNamespace(), priority=0)  # type: ignore[arg-type]
        self.replayer = Replayer(seen)
        self.tokenizer: Any = deepcopy(engine.renderer.get_tokenizer())
        self.events: Events = queue.SimpleQueue()

    async def _hand_over(
        self, prompt: Any, params: SamplingParams, name: str, *, lora_request: LoRARequest | None, **_: Any
    ) -> AsyncGenerator[Any, None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events.put(Prefill(name, prompt["prompt_token_ids"], params, lora_request, done))
        await done
        return
        yield  # type: ignore[unreachable]

    @property
    def answering(self) -> bool:
        """Nobody waits for one answer while others are verified."""
        return False

    def sampling_of(self, rendered: Call, asked: Sampling) -> Sampling:
        if rendered.sampling_params is UNSAID:
            return Sampling(other=("the rollout does not say its sampling_params",))
        return super().sampling_of(rendered, asked)


class Verification:
    """Reports on rollouts by one engine.

    Args:
        verifier: makes one of an engine as verification asks for it.
    """

    def __init__(
        self, engine: ProvingEngine, background: Background, verifier: Callable[[RolloutEngine], EngineVerifier]
    ) -> None:
        self._engine = engine
        self._background = background
        self._prover = RolloutEngine(engine)
        self._verifier = verifier(self._prover)

    def reports(self, rollouts: Iterable[Rollout]) -> Iterator[tuple[int, Report]]:
        """A report on each, with its place, as they are done.

        Rollouts are read as there is room. Raises whatever the engine raises.
        """
        return self._reports(partial(self._judge_rollout, rollout) for rollout in rollouts)

    def reports_on(self, items: Iterable[bytes]) -> Iterator[tuple[int, Report]]:
        """See `reports`: of evidence in JSON, without its check on tokens. Its prompts are rendered by the model's
        chat template, and the rest of its responses is what `judge` finds without a rehearsal."""
        return self._reports(partial(self._judge_evidence, item) for item in items)

    def _reports(self, judgements: Iterable[Judging]) -> Iterator[tuple[int, Report]]:
        # Those that an earlier call left behind have their own.
        events = self._prover.events = queue.SimpleQueue()
        source = enumerate(judgements)
        tasks: dict[int, Future[Report]] = {}
        prefills: dict[str, Prefill] = {}
        try:
            while True:
                for place, judging in islice(source, AT_ONCE - len(tasks)):
                    tasks[place] = self._begin(place, judging)
                if not tasks:
                    return
                for event in _taken(events, wait=not prefills):
                    if isinstance(event, Prefill):
                        prefills[event.name] = event
                        self._engine.add_prefill(event.name, event.token_ids, event.params, event.lora_request)
                    else:
                        yield event, tasks.pop(event).result()
                if prefills:
                    self._engine.toploc_ready += self._engine.advance()
                    for name in prefills.keys() - self._engine.toploc_prefills:
                        prefills.pop(name).end()
        finally:
            for task in tasks.values():
                task.cancel()
            if prefills:
                self._engine.abort_request(list(prefills))
                self._engine.toploc_prefills.clear()

    def _begin(self, place: int, judging: Judging) -> Future[Report]:
        task, events = self._background.submit(self._report(judging)), self._prover.events
        task.add_done_callback(lambda _: events.put(place))
        return task

    async def _report(self, judging: Judging) -> Report:
        """One that fails keeps no other from its report."""
        try:
            return await judging()
        except MalformedEvidence as error:
            return malformed("malformed", str(error), error.field)
        except Exception as error:
            logger.exception("toploc: the verification of a rollout failed")
            return refused(f"the verification failed: {type(error).__name__}: {error}"[:500])

    async def _judge_rollout(self, rollout: Rollout) -> Report:
        """Raises MalformedEvidence."""
        policy = self._verifier.policy
        evidence = await self._verifier.in_thread(rollout.evidence)
        if rollout.lora_request is not None:
            policy = replace(policy, names=[rollout.lora_request.lora_name])
        call = _call_of(rollout, evidence)
        if call.sampling_params is not UNSAID:
            call = await self._prover.replayer.read(call)

        async def report(alternative: int) -> Report:
            return await self._report_by(alternative, rollout, evidence, call, policy)

        others = (partial(report, n) for n in range(1, self._prover.alternatives(call)))
        return await best_of(await report(0), others)

    async def _report_by(
        self, alternative: int, rollout: Rollout, evidence: Evidence, call: Call, policy: Policy
    ) -> Report:
        """By one of the sets of masks that its tokens may have been drawn under."""
        verifier = self._verifier
        computed = [(await verifier.compute(evidence, answer, call, alternative))[0] for answer in evidence.answers]
        problem = next((entry.message for entry in computed if isinstance(entry, Check)), None)
        if not computed:
            problem = "there are no tokens with proofs"
        rehearsed = Rehearsed(problem=problem) if problem else await self._rehearse(rollout, evidence, call)
        return await verifier.in_thread(partial(judge, evidence, policy, computed, [rehearsed]))

    async def _judge_evidence(self, item: bytes) -> Report:
        """Raises MalformedEvidence, or TooLarge."""
        verifier = self._verifier
        evidence = await verifier.parse(await verifier.in_thread(partial(load_json, item)))
        computed: list[Computed | Check] = []
        for answer in evidence.answers:
            # On this thread alone: a tokenizer is not to be shared.
            prompt = prompt_of(evidence, answer, self._prover.tokenizer)
            if isinstance(prompt, Check):
                computed.append(prompt)
                continue
            rendered = {"type": "token", "prompt_token_ids": [*prompt]}
            call = Call(rendered, UNSAID, f"evidence-{id(answer)}", None)
            computed.append((await verifier.compute(evidence, answer, call, 0))[0])
        named = evidence.under_one_name(verifier.names)
        return await verifier.in_thread(partial(judge, named, verifier.policy, computed))

    async def _rehearse(self, rollout: Rollout, evidence: Evidence, call: Call) -> Rehearsed:
        """What the rollout says beside its proofs, held against them: its tokens, and where and why they end."""
        proven = evidence.answers[0].token_ids
        claimed: dict[str, Any] = {"token_ids": [*rollout.token_ids]}
        made: dict[str, Any] = {"token_ids": [*proven]}
        if call.sampling_params is not UNSAID:
            reason = None
            try:
                async for output in self._prover.replayer.outputs(call, [Claim(proven, True)], [Scored()], []):
                    reason = output.outputs[0].finish_reason
            except Unended as error:
                return Rehearsed(ended=Ended(0, len(proven), error.count))
            if rollout.finish_reason is not None:
                claimed["finish_reason"], made["finish_reason"] = rollout.finish_reason, reason
        return Rehearsed(compare(claimed, made))


def _call_of(rollout: Rollout, evidence: Evidence) -> Call:
    """What the engine was asked for, as one choice of its own."""
    params = UNSAID
    if rollout.sampling_params is not None:
        params = copy(rollout.sampling_params)
        params.n, params.seed, params.output_kind = 1, evidence.sampling.seed, RequestOutputKind.FINAL_ONLY
    [prompt] = evidence.prompts
    rendered = {"type": "token", "prompt_token_ids": [*prompt]}
    return Call(rendered, params, f"rollout-{id(rollout)}", rollout.lora_request)


def _taken(events: Events, *, wait: bool) -> Iterator[Prefill | int]:
    """Those that there are; one at least, if there is nothing else to do."""
    if wait:
        yield events.get()
    while not events.empty():
        yield events.get()
