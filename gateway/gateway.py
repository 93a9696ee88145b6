"""All parts of one gateway, put together, started and stopped."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .auditor import Auditor
from .audits import Audits
from .errors import StoreUnavailable
from .log import event
from .metrics import Metrics
from .relay import Relay, Side
from .stores.answers import Answers
from .stores.database import Database
from .stores.standing import Standings
from .stores.tally import Tally
from .trust import Trust
from .upstream import Upstream

if TYPE_CHECKING:
    from .config import Config, UpstreamOptions
    from .finding import Finding

REFRESH: Final = 1.0
"""Seconds between two looks at the store, for its health and what other gateways wrote."""

PURGE: Final = 3600.0
"""Seconds between two sweeps of what is older than `store.keep_days`."""


class Gateway:
    def __init__(self, config: Config) -> None:
        self.config, self.metrics = config, Metrics()
        self.database = Database(config.store.url)
        self.answers, self.standings = Answers(self.database), Standings(self.database)
        self.trust = Trust({one.name: one for one in config.upstreams}, self.standings, self.metrics)
        self.sides = {options.name: self._side(options) for options in config.upstreams}
        self.tally = Tally(self.database)
        self.relay = Relay(config, self.sides, self.trust, self.answers, self.metrics, self.tally)
        self.audits = Audits(self.answers, {n: side.auditor for n, side in self.sides.items()}, self.metrics)
        self.running = 0
        """Requests in progress."""

    async def settled(self, finding: Finding) -> None:
        """Of an answer that was judged, or never will be."""
        self.metrics.answers.labels(finding.upstream, finding.model, finding.verdict).inc()
        of = (finding.upstream, finding.model, finding.verdict or "unchecked")
        self.tally.add(*of, finding.seconds, finding.tokens)
        if finding.verdict not in ("accepted", "weak", "unchecked"):
            told = {"upstream": finding.upstream, "model": finding.model, "why": finding.reason}
            event(logging.WARNING, f"an answer is {finding.verdict}", report=finding.id, **told)
        if finding.unstored:
            self.metrics.store_errors.inc()
            event(logging.ERROR, finding.unstored, report=finding.id)
        await self.trust.settled(finding)

    async def start(self) -> None:
        """Raises StoreUnavailable."""
        await self.database.probe()
        await self.trust.refresh()
        self._tasks = [asyncio.ensure_future(work()) for work in (self.audits.run, self._refresh, self._purge)]

    async def stop(self) -> None:
        """After the last reply: what is checked is checked to its end, the rest waits in the store."""
        await self.audits.stop(self.config.timeouts.stop)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for side in self.sides.values():
            await side.auditor.close_async()
            await side.strict.close_async()
            await side.upstream.close()
        with suppress(StoreUnavailable):
            await self.tally.flush()
            await self.trust.refresh()
        await self.database.close()

    def _side(self, options: UpstreamOptions) -> Side:
        upstream = Upstream(options, self.config.timeouts, self.config.limits.requests)
        auditor = Auditor(options, options.policy, self.answers, self.config.store, self.settled)
        strict = Auditor(options, options.strict(), self.answers, self.config.store, self.settled, parent=auditor)
        return Side(upstream, auditor, strict)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            try:
                if self.database.failing:
                    await self.database.probe()
                await self.tally.flush()
                await self.trust.refresh()
                self.metrics.pending.set(sum((await self.answers.pending()).values()))
            except StoreUnavailable as error:
                self.metrics.store_errors.inc()
                event(logging.ERROR, str(error))

    async def _purge(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                await self.answers.purge(self.config.store.keep_days)
                await self.tally.purge(self.config.store.keep_days)
            await asyncio.sleep(PURGE)
