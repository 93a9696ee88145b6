"""Every answer of a file, or a share of them, held against verifiers.

`scan` finds what is to be done, `verify` has it done and writes each report when it comes, and `entries` gives all of
them in the file's order to whatever adds them up: a table, a page, a test over the sequence of answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from toploc.errors import ToplocError
from toploc.report import Report

from .dispatch import Work
from .entry import Entry, entry_of, unreported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cluster import RayDispatcher
    from .dispatch import Dispatcher
    from .journal import Journal
    from .readers import Reader


@dataclass(slots=True)
class Scan:
    """What a file holds: lines, those chosen, those of them without a report yet."""

    lines: int = 0
    chosen: int = 0
    left: int = 0
    last: int = 0
    torn: list[Entry] = field(default_factory=list)


class Audit:
    """Of one file, whose reports are in the journal.

    Once `stopped` is set no more is begun; what verifiers have is waited for.
    """

    def __init__(self, reader: Reader, journal: Journal) -> None:
        self.stopped = False
        self._reader = reader
        self._journal = journal
        self._loose: list[Entry] = []
        """Answers that nobody reported on: not in the journal, so that they are tried again."""
        self._scan = Scan()

    def scan(self) -> Scan:
        """Reads the file once. Raises ToplocError where a line is not what the journal's report is on."""
        scan, missing = Scan(), set(self._journal.done)
        for line in self._reader.lines():
            scan.lines, scan.last = scan.lines + 1, line.number
            if line.data is None:
                scan.torn.append(entry_of(line.number, line.offset, "", b"", unreported("torn", line.problem or "")))
                continue
            digest = sha256(line.data).hexdigest()
            if self._journal.draw.chosen(digest):
                scan.chosen += 1
                missing.discard(line.number)
                if self._journal.done.get(line.number, digest) != digest:
                    self._another_file(line.number)
                scan.left += line.number not in self._journal.done
        if missing:
            self._another_file(min(missing))
        self._scan = scan
        return scan

    async def verify(self, dispatcher: Dispatcher | RayDispatcher, progress: Callable[[Entry], object]) -> None:
        """Has every answer that the scan left verified; `progress` is called with each."""
        self._loose = list(self._scan.torn)
        settled = set()
        async for work, verifier, result in dispatcher.reports(self._work()):
            settled.add(work.line)
            if isinstance(result, Report):
                entry = entry_of(work.line, work.offset, work.sha256, work.data, result, verifier)
                self._journal.append(entry)
            else:
                report = unreported("unverified", str(result))
                entry = entry_of(work.line, work.offset, work.sha256, work.data, report)
                self._loose.append(entry)
            progress(entry)
        if dispatcher.gave_up:
            report = unreported("unverified", "no verifier could be reached")
            self._loose += [
                entry_of(work.line, work.offset, work.sha256, work.data, report)
                for work in self._work()
                if work.line not in settled
            ]

    def entries(self) -> Iterator[Entry]:
        """Of every answer that was chosen, in the file's order, with those that nobody reported on behind."""
        yield from self._journal.entries()
        yield from sorted(self._loose, key=lambda entry: entry.line)

    def _work(self) -> Iterator[Work]:
        for line in self._reader.lines():
            if self.stopped or line.number > self._scan.last:  # what was written since the scan is the next audit's
                return
            if line.data is not None and line.number not in self._journal.done:
                digest = sha256(line.data).hexdigest()
                if self._journal.draw.chosen(digest):
                    yield Work(line.number, line.offset, digest, self._journal.draw.asked(line.data))

    def _another_file(self, line: int) -> None:
        raise ToplocError(
            f"{self._journal.folder}: line {line} of {self._reader.path} is not the one that the report there is on; "
            "choose another --out"
        )
