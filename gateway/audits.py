"""Checks what waits in the store: answers of the background, and those that no verifier could be asked about.

The store is the queue. So nothing is lost that an application has, whether this process is stopped, killed, or out of
reach of its verifiers; and several gateways of one store share the work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .errors import StoreUnavailable
from .log import event, logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .auditor import Auditor
    from .metrics import Metrics
    from .stores.answers import Answer, Answers

AT_ONCE: Final = 8
"""Answers that are checked at once; each waits for a verifier most of its time."""

PAUSE: Final = 0.5
"""Seconds between two looks into the store."""


class Audits:
    def __init__(self, answers: Answers, auditors: Mapping[str, Auditor], metrics: Metrics) -> None:
        self._answers, self._auditors, self._metrics = answers, auditors, metrics
        self._tasks: dict[asyncio.Task[None], str] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                free = AT_ONCE - len(self._tasks)
                for answer in await self._answers.claim(free) if free else ():
                    task = asyncio.ensure_future(self._check(answer))
                    self._tasks[task] = answer.id
                    task.add_done_callback(lambda done: self._tasks.pop(done, None))
            except StoreUnavailable as error:
                self._metrics.store_errors.inc()
                event(logging.ERROR, str(error))
            if len(self._tasks) == AT_ONCE:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(PAUSE)

    async def stop(self, seconds: float) -> None:
        """Lets checks end that are under way; the others stay in the store, for whoever comes next."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = dict(self._tasks)
        for task in left:
            task.cancel()
        with suppress(StoreUnavailable):
            await self._answers.release([*left.values()])

    async def _check(self, answer: Answer) -> None:
        auditor = self._auditors.get(answer.upstream)
        if auditor is None:
            return  # of a configuration that was; another gateway may know it
        started = time.monotonic()
        try:
            await auditor.recheck(answer)
        except Exception:  # one answer must not keep the others from being checked
            logger.exception("answer %s could not be checked", answer.id)
        self._metrics.audit_seconds.labels(answer.upstream, answer.model).observe(time.monotonic() - started)
