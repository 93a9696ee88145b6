"""A folder of answers, one file after another: those that are there, and those that come."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from toploc.errors import ToplocError
from toploc.foreign import printable
from toploc.page.figures import counted

from .journal import Journal, Proofless
from .readers import SUFFIXES, reader_of
from .run import Audit
from .table import Table
from .verdicts import write_verdicts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from .columns import Columns
    from .entry import Entry
    from .readers import Reader
    from .run import Scan

    Verify = Callable[[Audit, Scan], Awaitable[bool]]
    AddUp = Callable[[Audit, Reader, Path, Journal], Table]

POLL_SECONDS: Final = 1.0
"""Between two looks for new files, and before a file of which no verifier was left is tried again."""


class FolderAudit:
    """Each file has a folder of its own in `out/files`, as a single audit has it, and its verdicts in `out/verdicts`,
    which appear when the file is done.

    A file is taken for whole as soon as it has its name: whoever writes it does so under another, or one that begins
    with a dot, and renames it.

    Args:
        columns: of rollouts.
        sample, seed: the share of the answers.
        verdicts: the format of verdicts; None for that of the file.
        proofless: None where answers carry proofs.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        columns: Columns,
        *,
        sample: float,
        seed: str | None,
        verdicts: str | None,
        proofless: Proofless | None = None,
    ) -> None:
        self.table = Table()
        """Of all files, with answers numbered through."""
        self.unread: dict[str, str] = {}
        """Files that cannot be read, and why."""
        self._folder, self._out, self._columns = folder, out, columns
        self._sample, self._seed, self._verdicts, self._proofless = sample, seed, verdicts, proofless
        self._done: set[str] = set()
        self._added = 0
        self._audit: Audit | None = None
        self._stop = asyncio.Event()

    async def run(self, verify: Verify, add_up: AddUp, *, follow: bool) -> bool:
        """Until all files are done, or with `follow` until a signal; whether one came.

        What verifiers have then is waited for and kept. Raises ToplocError.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, self._end, loop)
        while not self._stop.is_set():
            for path in self._waiting():
                await self._do(path, verify, add_up)
                if self._stop.is_set():
                    break
            if not follow:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), POLL_SECONDS)
        return self._stop.is_set()

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets what is begun come to its end; a second signal does not wait."""
        self._stop.set()
        if self._audit is not None:
            self._audit.stopped = True
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        print("toploc audit: ending with what is begun; once more ends at once", file=sys.stderr)

    def _waiting(self) -> list[Path]:
        """Files that are not done, by name, less those that could not be read as they are."""
        try:
            found = sorted(path for path in self._folder.iterdir() if path.suffix in SUFFIXES)
        except OSError as error:
            raise ToplocError(f"{self._folder}: {error.strerror}") from None
        return [path for path in found if not path.name.startswith(".") and path.name not in self._done]

    async def _do(self, path: Path, verify: Verify, add_up: AddUp) -> None:
        target = self._target(path)
        with Journal(self._out / "files" / path.name, path, self._sample, self._seed, self._proofless) as journal:
            if target.exists():
                self._add(path, journal.entries())
                return
            try:
                reader = reader_of(path, self._columns)
                self._audit = Audit(reader, journal)
                scan = self._audit.scan()
            except ToplocError as error:
                self._pass_over(path, error)
                return
            whole = await verify(self._audit, scan)
            if not whole or self._audit.stopped:
                return
            add_up(self._audit, reader, journal.folder, journal)
            write_verdicts(target, path.name, self._audit.entries())
            self._add(path, self._audit.entries())
            print(f"{target}: {counted(scan.lines, 'row')}", file=sys.stderr)

    def _target(self, path: Path) -> Path:
        other = self._verdicts is not None and path.suffix != f".{self._verdicts}"
        return self._out / "verdicts" / (f"{path.name}.{self._verdicts}" if other else path.name)

    def _add(self, path: Path, entries: Iterable[Entry]) -> None:
        self._done.add(path.name)
        self.unread.pop(path.name, None)
        for entry in entries:
            self._added += 1
            self.table.add(entry.model_copy(update={"line": self._added}))
        self.table.write(self._out / "summary.json")

    def _pass_over(self, path: Path, error: ToplocError) -> None:
        """The first file's fault is the call's; a later one is that file's, which is tried again."""
        if not self._done:
            raise error
        if self.unread.get(path.name) != str(error):
            self.unread[path.name] = str(error)
            print(f"toploc audit: passed over: {printable(str(error))}", file=sys.stderr)
