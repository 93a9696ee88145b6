"""What is found of an upstream's answers, by the SDK's own checker; and written down before anything else happens."""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from toploc_client import share
from toploc_client.answer import Answer
from toploc_client.checker import Checker, Given
from toploc_client.errors import MissingProofs
from toploc_client.exchange import Exchange
from toploc_client.judgement import Judgement
from toploc_client.options import Options, Verifies

from toploc.errors import ToplocError
from toploc.evidence.strict_json import load_json
from toploc.evidence.unproven import without_proofs
from toploc.verifier.server import AsyncVerifier

from .errors import StoreUnavailable
from .finding import Finding
from .log import logger
from .stores.answers import LEASE, PENDING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from toploc_client.kept import FetchAsync
    from toploc_client.routes import Sent

    from toploc.protocol import ToplocProofs
    from toploc.report import Check, Report

    from .config import Policy, StoreOptions, UpstreamOptions
    from .stores.answers import Answer as Stored
    from .stores.answers import Answers

RETRY: Final = 30.0
"""Seconds after which an answer is checked again of which no verifier could say anything."""

CLOSE_SECONDS: Final = 10.0


class Auditor(Checker):
    """The checker of one upstream, under one policy.

    Where it is `inline`, what waits for `finish` has the verdict afterwards; else the answer is in the store by
    then, pending, and `settled` is called once it is judged. Nothing here raises for what an answer says.
    """

    def __init__(
        self,
        upstream: UpstreamOptions,
        policy: Policy,
        answers: Answers,
        store: StoreOptions,
        settled: Callable[[Finding], Awaitable[None]],
        *,
        parent: Auditor | None = None,
    ) -> None:
        self.proofless = upstream.proofs == "none"
        """Whether answers are held to their text alone."""
        requires = True if policy.action("missing") != "warn" else None
        options = Options(
            verifier=_verifiers(upstream) if parent is None else parent.options.verifier,
            rule=upstream.rule,
            audit_rate=policy.audit_rate if policy.when == "inline" else 1.0,
            require_proofs=False if self.proofless else requires,
            fetch_proofs=False if self.proofless else None,
            trusted_keys=upstream.trusted_keys or () if not self.proofless else (),
            draw_seeds=upstream.draw_seeds and not self.proofless,
        )
        super().__init__(options, parent)
        self.policy = policy
        self._upstream, self._answers, self._storing, self._settled = upstream, answers, store, settled
        self._tasks: set[asyncio.Task[None]] = set()

    async def finish(self, answer: Answer, fetch: FetchAsync | None = None) -> None:
        """Its `response` is the Finding."""
        finding: Finding = answer.response
        if fetch is not None and (name := self.fetchable(answer)) is not None:
            answer = self.receive(answer, await fetch(name))
        given = self._given(finding, answer)
        if given is None:
            await self._close(finding, answer)
            return
        finding.worsen(PENDING)
        inline = self.policy.when == "inline"
        await self._write(finding, given.exchange, given.own, held=LEASE if inline else 0.0)
        if inline or not finding.stored:
            await self._judge_finding(finding, given)
            await self._tell(finding)

    def draws(self, sent: Sent) -> bool:
        """In the background an answer is drawn before it comes, so that the others need not be read. What draws it is
        not known to the server."""
        name = f"{next(self._numbers)}:{sha256(sent.body).hexdigest()}"
        return share.chosen(self.policy.audit_rate, self.seed, name)

    def over(self, finding: Finding, left: Coroutine[Any, Any, None] | None) -> None:
        """Nothing more comes of a stream. `left` looks at one that the application left; what nobody has counted is
        counted here."""
        if left is not None:
            self._later(left)
        elif not finding.told and finding.verdict != PENDING:
            finding.worsen("unchecked", finding.reason or ("left" if finding.verdict is None else None))
            self._later(self._tell(finding))

    def unchecked(self, response: Any, why: str, *, raises: bool = True) -> None:
        finding: Finding = response
        super().unchecked(finding, why, raises=raises)
        finding.worsen("unchecked", why)

    async def _judge_finding(self, finding: Finding, given: Given) -> None:
        """Asks the verifiers, and writes down what they say. Where none could say anything, the answer stays pending in
        the store, and is `unavailable` to whoever waits."""
        started = time.monotonic()
        judgement = await self.ask_async(given)
        if reports := sum(opinion.report is not None for opinion in judgement.opinions):
            finding.seconds = time.monotonic() - started
            finding.tokens = reports * _tokens(given.exchange.proofs)
        if judgement.open:
            if finding.stored:
                await self._release(finding)
            finding.worsen("unavailable", "no verifier could be asked", judgement)
        else:
            finding.worsen(_verdict(judgement), _reason(judgement), judgement)
            await self._judged(finding)

    async def opinion(self, evidence: bytes) -> Judgement:
        """Of what anybody brings, by the verifiers of this upstream, of which it has some, and its keys. Nothing is
        remembered of it.

        Raises MalformedEvidence.
        """
        value = load_json(evidence)
        known = value if isinstance(value, dict) else {}
        request, response = (json.dumps(known.get(name)).encode() for name in ("request", "response"))
        own = self._receipts(Exchange(request, response, exact=False))
        opinions = await asyncio.gather(*(named.ask_async(evidence) for named in self._verifiers))
        return Judgement.by(self.options.rule, opinions, own)

    async def recheck(self, answer: Stored) -> None:
        """Of an answer that was pending in the store."""
        finding = Finding(answer.upstream, answer.model, answer.route, answer.id, answer.made_at, PENDING, stored=True)
        known = Answer(answer.exchange, None, answer.exchange.proofs)
        given = Given(answer.exchange, answer.own_checks, known.unproven)
        await self._judge_finding(finding, given)
        if finding.verdict != "unavailable":  # that was told, and may be many times more
            await self._tell(finding)

    async def close_async(self) -> None:
        """After the checks of streams that were left."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for verifier in self.options.verifiers:
            if isinstance(verifier, AsyncVerifier | ByTextAlone):
                await verifier.close()

    def _given(self, finding: Finding, answer: Answer) -> Given | None:
        if self.proofless:
            return self._given_text(finding, answer)
        try:
            given = self.begin(answer)
            if finding.drawn or given is None or any(check.status in ("failed", "undecided") for check in given.own):
                return given
        except MissingProofs as error:
            finding.worsen("missing", error.code or str(error))
        except (ToplocError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            # Whoever made the answer may have brought this about, so it is not one that nobody looked at.
            logger.exception("an answer could not be read")
            finding.worsen("undecided", f"{type(error).__name__}: {error}"[:200])
        return None

    def _given_text(self, finding: Finding, answer: Answer) -> Given | None:
        """Nothing but its text counts, whatever field it comes with."""
        exchange = answer.exchange
        if exchange is None or not finding.drawn or answer.says_nothing:
            return None
        if self.policy.when == "inline" and not self.chosen(next(self._numbers), exchange):
            return None
        return Given(exchange)

    async def _close(self, finding: Finding, answer: Answer) -> None:
        """Nothing is left to find. What was refused is kept as evidence, like what was checked."""
        finding.worsen("unchecked", finding.reason)
        kept = answer.exchange or Exchange.read(answer.sent.body if answer.sent is not None else b"", b"")
        if finding.verdict in ("missing", "undecided") or self._storing.evidence == "all":
            await self._write(finding, kept)
        await self._tell(finding)

    async def _tell(self, finding: Finding) -> None:
        finding.told = True
        await self._settled(finding)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(
        self, finding: Finding, exchange: Exchange, own: Sequence[Check] = (), *, held: float = 0.0
    ) -> None:
        try:
            await self._answers.add(finding.answer(exchange, own), held)
            finding.stored = True
        except StoreUnavailable as error:
            finding.unstored = str(error)

    async def _judged(self, finding: Finding) -> None:
        try:
            await self._answers.judge(finding.id, str(finding.verdict), finding.reason, finding.report)
        except StoreUnavailable as error:
            finding.unstored = str(error)

    async def _release(self, finding: Finding) -> None:
        try:
            await self._answers.release([finding.id], after=RETRY)
        except StoreUnavailable as error:
            finding.unstored = str(error)


class ByTextAlone:
    """A verifier that is asked to hold each answer to its text alone."""

    def __init__(self, verifier: AsyncVerifier, sampling: Sequence[Mapping[str, float]] | None) -> None:
        self._verifier, self._sampling = verifier, sampling
        self.url = verifier.url

    async def verify(self, evidence: bytes) -> Report:
        """See `AsyncVerifier.verify`."""
        return await self._verifier.verify(without_proofs(evidence, self._sampling))

    async def close(self) -> None:
        await self._verifier.close()


def _verifiers(upstream: UpstreamOptions) -> tuple[Verifies, ...]:
    made = list[Verifies]()
    for one in upstream.verifiers:
        key = None if one.api_key is None else one.api_key.get_secret_value()
        verifier = AsyncVerifier(one.url, api_key=key, timeout=one.timeout, retries=one.retries)
        made.append(ByTextAlone(verifier, upstream.sampling) if upstream.proofs == "none" else verifier)
    return tuple(made)


def _verdict(judgement: Judgement) -> str:
    """`weak` where every verifier looked at the text of an answer without proofs and found nothing."""
    looked = all(opinion.report is not None and opinion.report.weak for opinion in judgement.opinions)
    return "weak" if judgement.verdict == "undecided" and looked else judgement.verdict


def _tokens(proofs: ToplocProofs | None) -> int:
    """That a verifier computes for an answer: prompt and tokens of each choice."""
    if proofs is None:
        return 0
    prompts = [choice.prompt or proofs.prompt for choice in proofs.choices or ()]
    read = sum(prompt.num_tokens for prompt in prompts if prompt is not None)
    return read + sum(len(choice.token_ids) for choice in proofs.choices or ())


def _reason(judgement: Judgement) -> str | None:
    """Of the check that the verdict follows from."""
    status = {"rejected": "failed", "undecided": "undecided"}.get(judgement.verdict)
    return next((check.reason for check in judgement.checks if check.status == status), None)
