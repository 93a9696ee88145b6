"""The server as a verifier: one prefill in the running engine for each choice, and the checks on it."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from toploc.checks.prompt import check_prompt, reads_clock
from toploc.errors import ProofUnavailable
from toploc.evidence.parse import read_evidence
from toploc.proofs.chunks import Points
from toploc.receipts.keys import load_trusted_keys
from toploc.scheme import TOPK
from toploc.thresholds.bounds import choose_thresholds
from toploc.tokens.logprobs import TokenLogprobs
from toploc.tokens.sampling import Sampling
from toploc.tokens.scores import TokenScores
from toploc.verifier.judge import Computed, Policy, beyond_the_model, not_computable
from toploc.verifier.swept import best_of_variants, swept

from ..channel.client import in_background
from ..channel.messages import Examine, Masked
from ..channel.tag import EXTRA_ARG, Tag
from ..metrics import RUNNING
from .engine import Scored, Unrenderable
from .limits import Places, TooLarge
from .recent import Verifications
from .verification import Verification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from toploc import engine as engines
    from toploc.evidence.evidence import Answer, Evidence
    from toploc.report import Check, Report
    from toploc.tokens.masks import Constraint, Masks

    from ..channel.client import Channel
    from ..channel.messages import Examined, Logprobs, Welcome
    from ..settings import Settings
    from .engine import Engine, Health, Rendered

T = TypeVar("T")

THREADS: Final = 2
"""Parsing and judging hold the GIL for milliseconds; two threads keep one long item from delaying all others."""

TIMEOUT: Final = 600.0
"""Seconds for one item, most of it spent behind other requests in the engine's queue."""

ALIVE_SECONDS: Final = 1.0
"""Between looks at whether the engine is alive."""


MOST_LISTED: Final = 256
"""Likeliest tokens of a place. Stops requests for all of the vocabulary, which are gigabytes."""


BEST_FIRST: Final = ("accepted", "undecided", "rejected")
"""Verdicts, of which one that another of the same answer contradicts accuses nobody."""

MASKING: Final = frozenset(("structured_outputs",))
"""Constraints, where they are not followed, that change the log-probabilities that an engine reports."""


class EngineVerifier:
    """Judges evidence by the engine that this server runs.

    Args:
        channel, welcome: to the workers, and what they say of themselves.
        names: that the model is served under.
        described: the engine, as reports name it.
    """

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        welcome: Welcome,
        settings: Settings,
        names: Sequence[str],
        described: engines.Engine | None = None,
    ) -> None:
        self.engine = engine
        self._channel = channel
        self._secret = settings.secret
        self._has_scores = welcome.scores
        self._dtype = welcome.dtype
        self._defaults = {name: value for name, value in engine.defaults.items() if name in Sampling.model_fields}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="toploc-verify")
        self.names = tuple(names)
        self.recent = Verifications(settings)
        self.places = Places(
            settings.verify_concurrency,
            settings.verify_tokens,
            settings.verify_body_bytes,
            beside=settings.verify_tokens_beside,
            answering=lambda: engine.answering,
        )
        self.policy = Policy(
            names=self.names,
            thresholds=choose_thresholds(settings.thresholds, engine.model, welcome.dtype, welcome.hidden_size),
            decode=engine.decode,
            eos_token_ids=engine.eos_token_ids,
            context_length=engine.context_length,
            secret=secrets.token_bytes(16),
            trusted_keys=load_trusted_keys(settings.trusted_keys) if settings.trusted_keys else (),
            clock=reads_clock(engine.chat_template),
            engine=described,
        )

    async def parse(self, item: object) -> Evidence:
        """Raises MalformedEvidence, or TooLarge."""
        evidence = await self.in_thread(partial(read_evidence, item, self._defaults, self.engine))
        for answer in evidence.answers:
            if len(answer.token_ids) > self.places.tokens:
                field = f"response.toploc_proofs.choices[{answer.index}]"
                raise TooLarge(field, f"{field}: more than {self.places.tokens:,} tokens")
        return evidence

    async def verify(self, evidence: Evidence) -> Report:
        """The report; of several by masks that may have been other ones, the best: none of them may accuse alone. So
        it is of several by the options that an answer without proofs may have been drawn under.

        Raises:
            TimeoutError: the engine did not come to it.
            Exception: whatever the engine raises.
        """
        async with asyncio.timeout(TIMEOUT):
            if evidence.proofless:
                return await self._verify_swept(evidence)
            first = Verification(self, evidence)
            report = await first.report()
            others = (Verification(self, evidence, n).report for n in range(1, first.alternatives))
            return await best_of(report, others)

    async def _verify_swept(self, evidence: Evidence) -> Report:
        """Of an answer without proofs, one variant after another, whatever its provider calls the model."""
        asked = evidence.source[0]
        if asked.get("model") not in self.served_names():
            asked = {**asked, "model": self.names[0]}
        known = replace(evidence, source=(asked, evidence.source[1]))
        # What an engine does not say here is a part of what its route hands over.
        variants = swept(known, knows_defaults=bool(self._defaults))
        return best_of_variants([(one, await Verification(self, one.evidence).report()) for one in variants])

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def compute(
        self, evidence: Evidence, answer: Answer, rendered: Rendered, alternative: int
    ) -> tuple[Computed | Check, Scored | None]:
        """What the checks need of one choice, or why there is nothing; and the log-probabilities that its response
        reports, None if they are not to be had.

        1. The prompt is made of tokens and media.
        2. The engine can be run over prompt and answer (`beyond_the_model`), within the budget of tokens. Where it is
            not, a claim of another prompt still counts: it must not be a way around the check on it.
        3. Its tokens are followed through a grammar and the like.
        4. One prefill; what the worker says of it.
        """
        try:  # 1
            prompt = rendered.token_ids
        except Unrenderable as error:
            return not_computable(answer, "prompt", "unrenderable", str(error)), None
        token_ids = answer.token_ids
        beyond = beyond_the_model(  # 2
            answer, prompt, vocab_size=self.engine.vocab_size, context_length=self.policy.context_length
        )
        if beyond is None and len(prompt) + len(token_ids) > self.places.tokens:
            message = f"{len(prompt)} + {len(token_ids)} tokens, this server verifies {self.places.tokens:,} at once"
            beyond = not_computable(answer, "proofs", "too_large", message)
        if beyond is not None and evidence.proofless:
            return beyond, None
        if beyond is not None:
            held = partial(check_prompt, clock=self.policy.clock, media=rendered.media, carried=evidence.carried)
            claimed = await self.in_thread(partial(held, answer, prompt))
            return (claimed if claimed.status == "failed" else beyond), None
        sampling = self.engine.sampling_of(rendered, evidence.sampling_of(answer))
        constraint = await self.engine.constrain(rendered, token_ids, alternative)  # 3
        try:  # 4
            examined = await self._examine(*self._asked(sampling, constraint, prompt, token_ids, rendered), rendered)
        except ProofUnavailable as error:
            return not_computable(answer, "proofs", "not_computed", f"{error.code}: {error}"), None
        points = Points(
            np.frombuffer(examined.indices, dtype=np.int32).reshape(-1, TOPK),
            np.frombuffer(examined.patterns, dtype=np.uint16).reshape(-1, TOPK),
            tuple(examined.rows),
        )
        scores = TokenScores.from_bytes(examined.scores) if examined.scores else None
        reported = [TokenLogprobs.from_bytes(examined.logprobs, which) for which in ("", "prompt_")]
        scored = Scored(*reported) if examined.logprobs else None
        own = None if scored is None or scored.answer is None else scored.answer.values[:, 0].astype(np.float64)
        made = Computed(tuple(prompt), points, self._dtype, scores, sampling, constraint, rendered.media, own)
        return made, scored

    def _asked(
        self,
        sampling: Sampling,
        constraint: Constraint,
        prompt: Sequence[int],
        token_ids: Sequence[int],
        rendered: Rendered,
    ) -> tuple[Tag, Examine]:
        """What the worker is asked, and the tag of the prefill that it is asked about."""
        followed = not constraint.problem and constraint.forbidden is None
        logprobs = self._wanted(rendered) if followed and MASKING.isdisjoint(sampling.other) else None
        tag = Tag.new(start=len(prompt) - 1 if logprobs is None or logprobs.prompt is None else 0)
        wanted = self._has_scores and not sampling.other and followed
        return tag, Examine(
            tag.nonce,
            list(prompt),
            list(token_ids),
            sampling.model_dump_json() if wanted else None,
            sorted(self.policy.eos_token_ids),
            self.engine.adapter_of(rendered),
            logprobs,
            _masked(constraint.masks),
        )

    async def _examine(self, tag: Tag, asked: Examine, rendered: Rendered) -> Examined:
        # The last token goes into nothing.
        token_ids = [*asked.prompt, *asked.token_ids[:-1]]
        async with self.places.prefill(min(len(token_ids) + 1, self.places.tokens)):
            with RUNNING.track_inprogress():
                try:
                    extra_args = {EXTRA_ARG: tag.seal(self._secret)}
                    await self.engine.prefill(f"toploc-{tag.nonce}", token_ids, rendered, extra_args)
                    return await unless_dead(self.engine.health, self._channel.examine(asked, TIMEOUT))
                except BaseException:
                    # Not waited for: the worker may be gone.
                    in_background(self._channel.discard(tag.nonce, [0]))
                    raise

    def _wanted(self, rendered: Rendered) -> Logprobs | None:
        """The log-probabilities to compute: not of the whole vocabulary, and none that options have changed."""
        wanted = rendered.logprobs
        if wanted is None or not self._has_scores or self.engine.reports is None:
            return None
        if not all(0 <= (count or 0) <= MOST_LISTED for count in (wanted.count, wanted.prompt)):
            return None
        return msgspec.structs.replace(wanted, raw=self.engine.reports == "logits")

    def served_names(self) -> list[str]:
        """Of the model and its adapters, which may be loaded while the server runs."""
        return [*self.names, *self.engine.adapters()]


async def best_of(report: Report, others: Iterable[Callable[[], Awaitable[Report]]]) -> Report:
    """The best of a report and `others`, which are made until one is accepted."""
    for other in others:
        if report.accepted:
            break
        report = min(report, await other(), key=lambda one: BEST_FIRST.index(one.verdict))
    return report


def _masked(masks: Masks | None) -> Masked | None:
    return None if masks is None else Masked(masks.rows.tobytes(), masks.raw.tobytes(), masks.processed.tobytes())


async def unless_dead(engine: Health, work: Coroutine[Any, Any, T]) -> T:
    """What the worker answers. An engine that died is told to those who wait for its outputs, and no one else:
    without this, requests would stay open for `TIMEOUT`, and with them the server, which waits for them at its end.

    Raises the engine's `dead_error`.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=ALIVE_SECONDS)
            if not task.done() and engine.errored:
                raise engine.dead_error
        return task.result()
    finally:
        task.cancel()
