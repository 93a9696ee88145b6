"""Which upstreams are asked: trusted ones, and those on probation; those in quarantine are not.

trusted ── a rejection, an alarm ──► quarantined ── its time is up, or an operator ──► probation
   ▲                                     ▲                                                  │
   └──── enough accepted answers ────────┼───────────────── a rejection ────────────────────┤
   └─────────────────────────────────────┼──────────────────────────────────────────────────┘
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from toploc.pooling.surprise import FALSE_ALARM
from toploc.report import UNPROVEN

from .errors import StoreUnavailable
from .log import event
from .stores.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toploc.report import Report

    from .config import UpstreamOptions
    from .finding import Finding
    from .metrics import Metrics
    from .stores.standing import Standings

ANSWERS: Final = 1000
"""That the thresholds of answers without proofs are for; over more they grow."""

MOST_TESTS: Final = 20
"""Of one report. Stops a verifier whose every report names other tests from filling the store."""


class Trust:
    """What is decided here holds at once in this gateway, and in others of the same store within a second."""

    def __init__(self, upstreams: Mapping[str, UpstreamOptions], standings: Standings, metrics: Metrics) -> None:
        self._upstreams, self._standings, self._metrics = upstreams, standings, metrics
        self._known = {name: Standing(name) for name in upstreams}
        self._unwritten: set[str] = set()

    def of(self, upstream: str) -> Standing:
        return self._known[upstream]

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._known.values())

    async def refresh(self) -> None:
        """Writes what could not be written, reads what other gateways wrote, and ends quarantines whose time is up.

        Raises StoreUnavailable.
        """
        for name in [*self._unwritten]:
            await self._standings.put(self._known[name])
            self._unwritten.discard(name)
        kept = await self._standings.all()
        if unknown := self._known.keys() - kept.keys():
            await self._standings.begin(sorted(unknown), time.time())
            kept = await self._standings.all()
        self._known.update({name: kept[name] for name in self._known if name in kept and name not in self._unwritten})
        for standing in [*self]:
            if standing.state == "quarantined" and standing.until is not None and standing.until <= time.time():
                await self.readmit(standing.upstream, "its time is up")
            self._show(standing.upstream)

    async def readmit(self, upstream: str, why: str) -> None:
        """On probation, with sequential tests that begin anew."""
        probation = self._upstreams[upstream].policy.quarantine.probation
        state: Any = "probation" if probation else "trusted"
        await self._put(Standing(upstream, state, time.time(), reason=why, probation=probation))
        try:
            await self._standings.forget(upstream)
        except StoreUnavailable as error:
            self._failed(error)

    async def quarantine(self, upstream: str, why: str, answer: str | None = None) -> None:
        options = self._upstreams[upstream].policy.quarantine
        until = None if options.seconds == "never" else time.time() + options.seconds
        event(logging.ERROR, "an upstream is in quarantine", upstream=upstream, reason=why, report=answer, until=until)
        await self._put(Standing(upstream, "quarantined", time.time(), until, why, answer))

    async def settled(self, finding: Finding) -> None:
        """Of an answer of which all is known that will be."""
        standing, options = self._known[finding.upstream], self._upstreams[finding.upstream].policy.quarantine
        if standing.state == "quarantined" or finding.made_at < standing.since:
            return  # it is about the time before
        alarm = await self._alarm(finding)
        if finding.verdict in options.after:
            await self.quarantine(finding.upstream, f"{finding.verdict}: {finding.reason}", finding.id)
        elif alarm and "alarm" in options.after:
            await self.quarantine(finding.upstream, alarm, finding.id)
        elif finding.verdict in ("accepted", "weak") and standing.state == "probation":
            await self._passed(standing)

    async def _passed(self, standing: Standing) -> None:
        try:
            left = await self._standings.passed(standing.upstream, time.time())
        except StoreUnavailable as error:
            self._failed(error)
            left = standing.probation - 1
        state: Any = "probation" if left > 0 else "trusted"
        self._known[standing.upstream] = replace(standing, state=state, probation=max(left, 0))

    async def _alarm(self, finding: Finding) -> str:
        """What the sequential tests say with this answer; empty for nothing."""
        raised = ""
        for test, ratio, threshold, audits in _tests(finding.report):
            try:
                found = await self._standings.add(finding.upstream, finding.model, test, ratio, threshold, audits)
            except StoreUnavailable as error:
                self._failed(error)
                return raised
            if found.value >= found.threshold:
                raised = f"alarm: {test}, after {found.answers:,} answers of {finding.model}"
        return raised

    async def _put(self, standing: Standing) -> None:
        self._known[standing.upstream] = standing
        self._unwritten.add(standing.upstream)
        self._show(standing.upstream)
        try:
            await self._standings.put(standing)
            self._unwritten.discard(standing.upstream)
        except StoreUnavailable as error:
            self._failed(error)

    def _show(self, upstream: str) -> None:
        self._metrics.quarantined.labels(upstream).set(self._known[upstream].state == "quarantined")

    def _failed(self, error: StoreUnavailable) -> None:
        self._metrics.store_errors.inc()
        event(logging.ERROR, str(error))


def _tests(report: Report | None) -> Iterator[tuple[str, float, float, int]]:
    """Name, log-likelihood ratio, threshold, and for how many audits that is, of each test that a report has a number
    for; as `toploc audit` reads them."""
    yield from _token_tests(report)
    checks = [check for check in report.checks if check.name == "pooled"] if report is not None else []
    number = 0
    for check in checks:
        ratios, alarms = check.figures.get("evidence"), check.thresholds.get("alarms")
        if not isinstance(ratios, dict) or not isinstance(alarms, dict):
            continue
        for copy, ratio in ratios.items():
            given = alarms.get(copy)
            values = [given.get(name) for name in ("threshold", "audits")] if isinstance(given, dict) else [None]
            numbers = [value for value in (ratio, *values) if isinstance(value, int | float) and math.isfinite(value)]
            if len(numbers) == 3 and min(numbers[1:]) > 0 and number < MOST_TESTS:
                number += 1
                name = ascii(f"{check.thresholds.get('name')}, against {copy}"[:100])[1:-1]
                yield name, float(numbers[0]), float(numbers[1]), math.ceil(numbers[2])


def _token_tests(report: Report | None) -> Iterator[tuple[str, float, float, int]]:
    """Of an answer without proofs: its surprise and its margins, by each of their alternatives.

    Each ratio is the logarithm of a factor whose expectation is 1 at most for an honest answer. So a cumulative sum of
    one reaches c within n answers with a chance of n exp(-c) at most (Lorden 1971), and one of k with k times that.
    Those of several sets of options are left out, of which an honest provider's keep one low; and the surprise of texts
    alone, of which only a share counts, and that share is not known here.
    """
    if report is None or not any(check.name == "proofs" and check.reason == UNPROVEN for check in report.checks):
        return
    for check in report.checks:
        if check.name != "tokens" or "swept" in check.figures:
            continue
        for kind in ("log_ratios", "margin_ratios"):
            alone = kind == "log_ratios" and check.figures.get("source") == "text"
            given = None if alone else check.figures.get(kind)
            ratios = given if isinstance(given, dict) else {}
            for name, ratio in list(ratios.items())[:MOST_TESTS]:
                if isinstance(ratio, int | float) and math.isfinite(ratio):
                    limit = math.log(ANSWERS * len(ratios) / FALSE_ALARM)
                    yield ascii(f"{kind} {name}"[:100])[1:-1], float(ratio), limit, ANSWERS
