"""Several verifiers as one: each gets new work as fast as it finishes the old, and one that is dead is left out."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from toploc.errors import ToplocError, VerifierUnavailable

from .limits import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from toploc.report import Report
    from toploc.verifier.server import AsyncVerifier

BATCH: Final = 16
"""Answers of one request."""
BATCH_BYTES: Final = 2**20
"""Of one request, unless it is one answer. Keeps what a dead verifier takes along small."""
ATTEMPTS: Final = 3
"""Requests with an answer that may fail. Stops an answer that makes verifiers fail from going round for ever."""
FAILURES: Final = 3
"""Requests in a row that a verifier may fail while it still says what it is."""
PROBE: Final = 10.0
"""Seconds until a verifier that was left out is tried again, and between questions to one that has work."""
MISSED: Final = 2
"""Questions in a row that a verifier with work may leave without a reply."""


@dataclass(slots=True)
class Work:
    """An answer to be verified: its line, and how many requests with it have failed."""

    line: int
    offset: int
    sha256: str
    data: bytes
    failed: int = 0


Outcome = tuple[Work, str, "Report | ToplocError"]
"""A piece of work, the verifier's URL, and its report or why there is none."""


class Dispatcher:
    """Spreads work over verifiers.

    Args:
        total: how many answers there are, so that a short file is spread too.
        in_flight: answers that a verifier has at once.
        wait: seconds to wait for a verifier while none can be reached; none at the start, where an address is wrong.
        notice: is told when a verifier is left out and when it is back.
    """

    def __init__(
        self,
        verifiers: Sequence[AsyncVerifier],
        *,
        total: int,
        in_flight: int,
        wait: float,
        notice: Callable[[str], object],
    ) -> None:
        self._verifiers = verifiers
        share = -(-total // len(verifiers))
        self._batch = max(1, min(BATCH, in_flight, share // 2))
        self._requests = max(1, -(-min(in_flight, share) // self._batch))
        self._wait, self._notice = wait, notice
        self._again: deque[Work] = deque()
        self._fresh: Iterator[Work] = iter(())
        self._running = 0
        self._out: set[str] = set()
        self._seen: set[str] = set()
        self._alone: float | None = None
        """When the last verifier was left out, by the monotonic clock; None once a report has come."""
        self._stopped = False
        self._changed = asyncio.Event()
        self._outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue()

    @property
    def gave_up(self) -> bool:
        """Whether no verifier was left, with work undone."""
        return self._stopped

    async def reports(self, work: Iterator[Work]) -> AsyncIterator[Outcome]:
        """A report on each piece of work and whose it is, or why there is none, as they come.

        Ends early, with `gave_up`, where no verifier is left.
        """
        self._fresh = work
        tasks = [asyncio.create_task(self._tend(verifier)) for verifier in self._verifiers]
        everything = asyncio.gather(*tasks)
        everything.add_done_callback(lambda _: self._outcomes.put_nowait(None))
        try:
            while (outcome := await self._outcomes.get()) is not None:
                yield outcome
            await everything
        finally:
            everything.cancel()
            # Waits for the tasks, and takes what ended them: asyncio prints an exception that nobody took.
            await asyncio.gather(everything, return_exceptions=True)

    async def _tend(self, verifier: AsyncVerifier) -> None:
        failures = 0
        while not self._finished():
            try:
                limits = Limits.of(await verifier.describe())
                if failures >= FAILURES:
                    raise VerifierUnavailable(verifier.url, f"{failures} requests in a row failed")
            except VerifierUnavailable as error:
                failures = 0
                self._leave_out(verifier, error)
                await self._pause()
                continue
            self._take_in(verifier)
            failures = 0 if await self._employ(verifier, limits) else failures + 1

    async def _employ(self, verifier: AsyncVerifier, limits: Limits) -> bool:
        """Has the verifier work until nothing is left or it fails; whether a report came."""
        requests = min(self._requests, limits.requests)
        tasks = [asyncio.create_task(self._work(verifier, limits)) for _ in range(requests)]
        watch = asyncio.create_task(self._watch(verifier, tasks))
        try:
            await asyncio.wait(tasks)
            served = [task.result() for task in tasks if not task.cancelled()]
            return any(served)
        finally:
            for task in (watch, *tasks):
                task.cancel()
            await asyncio.gather(watch, *tasks, return_exceptions=True)

    async def _watch(self, verifier: AsyncVerifier, tasks: Sequence[asyncio.Task[bool]]) -> None:
        """Ends the work of a verifier that does not say twice in a row what it is. A machine that lost its power, or a
        server without its engine, says nothing of the requests that it has, and they may take many minutes."""
        missed = 0
        while missed < MISSED:
            await asyncio.sleep(PROBE)
            try:
                await verifier.describe()
                missed = 0
            except VerifierUnavailable as error:
                missed += 1
                if missed == MISSED:
                    self._leave_out(verifier, error)
        for task in tasks:
            task.cancel()

    async def _work(self, verifier: AsyncVerifier, limits: Limits) -> bool:
        """Sends batches until nothing is left or one fails; whether a report came."""
        served = False
        while batch := await self._next(verifier, limits):
            waiting = dict(enumerate(batch))
            try:
                async for index, result in verifier.verify_many([work.data for work in batch]):
                    served, self._alone = True, None
                    self._settle(waiting.pop(index), verifier, result)
            except VerifierUnavailable as error:
                self._leave_out(verifier, error)
                self._give_back(waiting.values(), verifier, error)
                return served
            except asyncio.CancelledError:
                gone = VerifierUnavailable(verifier.url, "it no longer answers")
                self._give_back(waiting.values(), verifier, gone)
                raise
            finally:
                self._running -= 1
                self._wake()
        return served

    async def _next(self, verifier: AsyncVerifier, limits: Limits) -> list[Work]:
        """The next batch; none where all is done or the verifier is left out."""
        while not self._stopped and verifier.url not in self._out:
            if batch := self._batch_for(verifier, limits):
                self._running += 1
                return batch
            if self._finished():
                self._wake()
                return []
            await self._changed.wait()
        return []

    def _batch_for(self, verifier: AsyncVerifier, limits: Limits) -> list[Work]:
        """What is at hand for one request. Work that failed goes alone, and work that is too long nowhere."""
        batch: list[Work] = []
        size, body = 0, limits.body_bytes
        while len(batch) < min(self._batch, limits.items) and (work := self._take()) is not None:
            if len(work.data) + len('{"items":[]}') > body:
                error = ToplocError(f"longer than the {body:,} bytes that {verifier.url} takes")
                self._settle(work, verifier, error)
                continue
            if batch and (work.failed or size + len(work.data) > min(BATCH_BYTES, body - 100)):
                self._again.appendleft(work)
                break
            batch.append(work)
            size += len(work.data) + 1
            if work.failed:
                break
        return batch

    def _take(self) -> Work | None:
        return self._again.popleft() if self._again else next(self._fresh, None)

    def _finished(self) -> bool:
        if self._stopped:
            return True
        if self._running or self._again:
            return False
        work = next(self._fresh, None)
        if work is not None:
            self._again.append(work)
        return work is None

    def _give_back(self, batch: Iterable[Work], verifier: AsyncVerifier, error: ToplocError) -> None:
        for work in batch:
            work.failed += 1
            if work.failed >= ATTEMPTS:
                self._settle(work, verifier, error)
            else:
                self._again.append(work)

    def _settle(self, work: Work, verifier: AsyncVerifier, result: Report | ToplocError) -> None:
        self._outcomes.put_nowait((work, verifier.url, result))

    def _leave_out(self, verifier: AsyncVerifier, error: ToplocError) -> None:
        if verifier.url not in self._out:
            self._out.add(verifier.url)
            self._notice(f"left out: {error}")
        if len(self._out) == len(self._verifiers):
            self._alone = self._alone or time.monotonic()
            self._stopped = not self._seen or time.monotonic() - self._alone >= self._wait
        self._wake()

    def _take_in(self, verifier: AsyncVerifier) -> None:
        self._seen.add(verifier.url)
        if verifier.url in self._out:
            self._out.remove(verifier.url)
            self._notice(f"back: {verifier.url}")

    async def _pause(self) -> None:
        """Until the next probe, or until nothing is left to do."""
        end = time.monotonic() + min(PROBE, max(self._wait, 0.1))
        while not self._finished() and (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    def _wake(self) -> None:
        """Everybody who waits looks again; an event that is set and cleared at once wakes all its waiters."""
        self._changed.set()
        self._changed.clear()
