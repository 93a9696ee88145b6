"""The way of a request: to an upstream that serves its model and is trusted, and to the next where the policy says so.

A request is never repeated in silence: `toploc-tried` names each upstream that it went to before, and why that was not
all. By itself it goes on only where nothing was asked yet: no connection came about, or the upstream said that it is
too busy (429, 503). Whatever else may have been billed is repeated by policy alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
from toploc_client.tap import is_stream

from . import delivery
from .errors import BILLED, Refusal, StoreUnavailable
from .finding import Finding, plain
from .headers import REPORT, TRIED, UPSTREAM, VERDICT
from .log import event
from .metrics import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.responses import Response
    from toploc_client.routes import Sent

    from .auditor import Auditor
    from .config import Config
    from .incoming import Incoming
    from .metrics import Metrics
    from .stores.answers import Answers
    from .stores.tally import Tally
    from .trust import Trust
    from .upstream import Upstream

NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Errors before the first byte of a request."""

BUSY: Final = (429, 503)
"""What a server says that did not begin with a request."""

MESSAGES: Final = {
    "unreachable": "the upstream cannot be reached",
    "busy": "the upstream is busy",
    "broken": "the upstream's reply broke off or did not come; it may have been billed",
    "redirect": "the upstream redirects, which is not followed; set its `url` to where it is",
    "encoded": "the upstream's answer is compressed though it was asked not to be, so it was not read",
    "too_long": "the upstream's answer is longer than `limits.answer_bytes`, or all are than `limits.held_bytes`",
    "rejected": "the answer was rejected by its checks",
    "undecided": "nobody could tell whether the answer is right",
    "missing": "the answer has no proofs",
    "unavailable": "no verifier could be asked about the answer",
    "not_stored": "the answer could not be stored",
}


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An attempt that did not end in a reply. `billed`: an answer may have been made; `final`: no other is asked."""

    reason: str
    billed: bool
    final: bool
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """An upstream with its two auditors: by its policy, and on probation."""

    upstream: Upstream
    auditor: Auditor
    strict: Auditor


class Relay:
    def __init__(
        self, config: Config, sides: Mapping[str, Side], trust: Trust, answers: Answers, metrics: Metrics, tally: Tally
    ) -> None:
        self._config, self._sides, self._trust = config, sides, trust
        self._answers, self._metrics, self._tally = answers, metrics, tally
        self._budget = delivery.Budget(config.limits.held_bytes)
        self._models = {model for side in sides.values() for model in side.upstream.options.models}

    async def answer(self, incoming: Incoming) -> Response:
        """Raises Refusal."""
        started, tried = time.monotonic(), list[tuple[str, PassedOver]]()
        model = incoming.model if incoming.model in self._models else OTHER
        sides = await self._candidates(incoming)
        for number, side in enumerate(sides):
            outcome = await self._attempt(side, incoming, model, last=number + 1 == len(sides))
            name = side.upstream.name
            if not isinstance(outcome, PassedOver):
                self._metrics.requests.labels(name, model, outcome.status_code).inc()
                self._metrics.seconds.labels(name, model).observe(time.monotonic() - started)
                outcome.raw_headers.extend(_told(name, tried))
                return outcome
            self._metrics.passed_over.labels(name, outcome.reason).inc()
            tried.append((name, outcome))
            report = outcome.finding.id if outcome.finding is not None and outcome.finding.stored else None
            event(logging.WARNING, MESSAGES[outcome.reason], upstream=name, model=model, report=report)
            if outcome.final:
                break
        raise _refusal(tried)

    async def _candidates(self, incoming: Incoming) -> Sequence[Side]:
        """Those that may be asked, in the file's order. What was begun with one upstream goes on with it."""
        wanted = incoming.named
        if wanted is not None and wanted not in self._sides:
            raise Refusal(400, "unknown_upstream", f"there is no upstream {plain(wanted)!r}", "toploc-upstream")
        if wanted is None and incoming.sent is not None and incoming.sent.fetches is not None:
            wanted = await self._upstream_of(incoming.sent.fetches)
        fitting = [side for name, side in self._sides.items() if wanted in (None, name)]
        serving = [side for side in fitting if side.upstream.options.serves(incoming.model)]
        if not serving:
            raise Refusal(404, "model_not_found", f"no upstream serves {incoming.model!r}", "model")
        trusted = [side for side in serving if self._trust.of(side.upstream.name).state != "quarantined"]
        if not trusted:
            raise Refusal(503, "quarantined", "every upstream that serves this is in quarantine")
        return trusted if incoming.model is not None else trusted[:1]  # what has no model cannot go anywhere

    async def _upstream_of(self, response_id: str) -> str | None:
        try:
            name = await self._answers.upstream_of(plain(response_id))
        except StoreUnavailable:
            return None
        return name if name in self._sides else None

    async def _attempt(self, side: Side, incoming: Incoming, model: str, *, last: bool) -> Response | PassedOver:
        upstream, policy = side.upstream, side.auditor.policy
        probation = self._trust.of(upstream.name).state == "probation"
        auditor = side.strict if probation else side.auditor
        checked = upstream.options.checks and incoming.sent is not None
        if checked and self._answers.failing and self._config.store.on_error == "fail":
            raise Refusal(503, "store_unavailable", "answers cannot be stored at present, so none is asked for")
        asked = await upstream.prepared(incoming)
        if checked:
            draws = upstream.options.draw_seeds and upstream.options.proofs != "none"
            auditor.sampler = await upstream.sampler() if draws else ""
        broken = PassedOver("broken", billed=True, final=policy.on_broken == "fail")
        try:
            async with asyncio.timeout(self._config.timeouts.total):
                reply = await upstream.send(asked, identity=checked)
        except (httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise Refusal(400, "malformed_request", f"the request cannot be sent on: {plain(str(error))}") from None
        except NOT_SENT:
            return PassedOver("unreachable", billed=False, final=False)
        except (httpx.HTTPError, TimeoutError):
            return broken
        if 300 <= reply.status_code < 400 or (reply.status_code in BUSY and not last):
            await reply.aclose()
            redirects = reply.status_code not in BUSY
            return PassedOver("redirect" if redirects else "busy", billed=redirects, final=redirects and broken.final)
        sent = asked.sent
        if not checked or sent is None or not reply.is_success:
            if sent is not None and reply.is_success:
                self._tally.add(upstream.name, model, "unchecked")
            return delivery.raw(reply)
        if reply.headers.get("content-encoding", "identity") != "identity":
            await reply.aclose()
            return PassedOver("encoded", billed=True, final=broken.final)
        return await self._checked(
            side.upstream, reply, sent, auditor, Finding(upstream.name, model, incoming.path[:200])
        )

    async def _checked(
        self, upstream: Upstream, reply: httpx.Response, sent: Sent, auditor: Auditor, finding: Finding
    ) -> Response | PassedOver:
        config, policy = self._config, auditor.policy
        exam = delivery.Exam(
            *(sent, auditor, finding, upstream.proofs_of),
            limit=config.limits.answer_bytes,
            budget=self._budget,
            strip=config.field == "strip",
            fails=config.store.on_error == "fail",
        )
        if policy.when == "background":
            finding.drawn = auditor.draws(sent)
            if is_stream(reply, asked=False):
                return _with_report(delivery.watched(reply, exam), "pending" if finding.drawn else "unchecked", finding)
        final = policy.on_broken == "fail"
        try:
            async with asyncio.timeout(config.timeouts.total):
                response = await delivery.held(reply, exam)
        except (delivery.TooLong, *delivery.BROKEN) as error:
            reason = "too_long" if isinstance(error, delivery.TooLong) else "broken"
            return PassedOver(reason, billed=True, final=final, finding=finding)
        if finding.unstored and exam.fails:
            return PassedOver("not_stored", billed=True, final=True, finding=finding)
        verdict = finding.verdict or "unchecked"
        if verdict in ("rejected", "undecided", "missing", "unavailable"):
            action = policy.action(verdict)
            if action != "warn":
                return PassedOver(verdict, billed=True, final=action == "fail", finding=finding)
            event(logging.WARNING, MESSAGES[verdict], upstream=finding.upstream, report=finding.id, why=finding.reason)
        return _with_report(response, verdict, finding)


def _with_report(response: Response, verdict: str, finding: Finding) -> Response:
    """The report's id, where it is in the store or will be."""
    response.raw_headers.append((VERDICT, verdict.encode()))
    if finding.stored or verdict == "pending":
        response.raw_headers.append((REPORT, finding.id.encode()))
    return response


def _told(name: str, tried: Sequence[tuple[str, PassedOver]]) -> list[tuple[bytes, bytes]]:
    before = ", ".join(f"{one}={outcome.reason}" for one, outcome in tried)
    return [(UPSTREAM, name.encode()), *([(TRIED, before.encode())] if before else [])]


def _refusal(tried: Sequence[tuple[str, PassedOver]]) -> Refusal:
    """That of the last attempt; what may have been billed at any of them is said."""
    outcome = tried[-1][1]
    found = outcome.finding
    reason = f" ({found.reason})" if found is not None and found.reason else ""
    billed = any(one.billed for _, one in tried)
    status = BILLED if billed else 503 if outcome.reason in ("unreachable", "busy") else 502
    refusal = Refusal(status, outcome.reason, f"{MESSAGES[outcome.reason]}{reason}")
    refusal.headers = _told(tried[-1][0], tried)
    if found is not None:
        refusal.headers.append((VERDICT, (found.verdict or "unchecked").encode()))
        if found.stored:
            refusal.headers.append((REPORT, found.id.encode()))
    return refusal
