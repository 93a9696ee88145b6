"""Verifiers on a Ray cluster: Ray Data spreads answers over workers, each with a `toploc serve` of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import ToplocError, VerifierUnavailable
from toploc.foreign import printable
from toploc.report import Report
from toploc.verifier.server import Verifier

from .dispatch import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from .dispatch import Outcome

BLOCK: Final = 64
"""Answers that Ray Data hands out together."""
START_SECONDS: Final = 1800.0
"""For a worker's engine to load its model."""


class RayDispatcher:
    """Has answers verified by `workers` servers of a model, as `Dispatcher` has them by servers that are there.

    Args:
        command: after `toploc serve`; the model has to be on every node under the same path or name.
        gpus: of one worker, which Ray reserves for it.
        timeout: seconds for a request with `in_flight` answers.

    Raises ToplocError where ray is not installed.
    """

    gave_up = False

    def __init__(self, command: Sequence[str], *, workers: int, gpus: float, in_flight: int, timeout: float) -> None:
        try:
            import ray.data
        except ImportError as error:
            raise ToplocError(f"--ray: {error.name} is not installed; pip install 'toploc-proxy[all,ray]'") from None
        self._command, self._workers, self._gpus = list(command), workers, gpus
        self._in_flight, self._timeout = in_flight, timeout
        self._ray: Any = ray

    async def reports(self, work: Iterator[Work]) -> AsyncIterator[Outcome]:
        """See `Dispatcher.reports`. Raises ToplocError where workers fail for good; what came until then stands."""
        # Ray would report on its use to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        loop, rows = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | Exception | None]()

        def run() -> None:
            end: Exception | None = None
            try:
                for row in self._rows(work):
                    loop.call_soon_threadsafe(rows.put_nowait, row)
            except Exception as error:
                end = error
            with suppress(RuntimeError):  # the loop is gone: the audit was interrupted
                loop.call_soon_threadsafe(rows.put_nowait, end)

        # Not the loop's own threads, whose end would be waited for: Ray's iterators cannot be interrupted.
        threading.Thread(target=run, name="toploc-ray", daemon=True).start()
        try:
            while (row := await rows.get()) is not None:
                if isinstance(row, self._ray.exceptions.RayError):
                    raise ToplocError(f"--ray: {printable(str(row).strip().splitlines()[-1][:500])}")
                if isinstance(row, Exception):
                    raise row
                report, worker, problem = row.pop("report"), row.pop("worker"), row.pop("problem")
                yield Work(**row), worker, Report.model_validate_json(report) if report else ToplocError(problem)
        finally:
            # Or Ray's threads that are left would start it again.
            os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
            self._ray.shutdown()

    def _rows(self, work: Iterator[Work]) -> Iterator[dict[str, Any]]:
        import pyarrow as pa

        first = next(work, None)
        if first is None:
            return iter(())
        work = chain([first], work)
        ray = self._ray
        ray.init(logging_level="CRITICAL", log_to_driver=False)
        # It writes to both outputs whatever it raises too.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = []
        while block := [_row(item) for _, item in zip(range(BLOCK), work, strict=False)]:
            # In Ray's store, which spills to disk: the evidence may be larger than the memory.
            blocks.append(ray.put(pa.Table.from_pylist(block)))
        data = ray.data.from_arrow_refs(blocks).map_batches(
            Actor,
            fn_constructor_args=(self._command, self._timeout),
            batch_size=self._in_flight,
            compute=ray.data.ActorPoolStrategy(size=self._workers),
            num_gpus=self._gpus,
            num_cpus=1,
        )
        rows: Iterator[dict[str, Any]] = iter(data.iter_rows())
        return rows


class Actor:
    """A server of the model, which ends with the actor, and its client. Ray makes one in each of its workers."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        serve = [sys.executable, "-m", "toploc", "serve", *command, "--toploc-role", "verifier"]
        self._server = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "toploc_client.audit.tether", *serve, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._verifier = Verifier(f"http://127.0.0.1:{port}", timeout=timeout)
        self._name = f"ray:{socket.gethostname()}:{self._server.pid}"
        self._wait()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Of answers, the same with a report in JSON or the problem that kept it away."""
        items = [bytes(data) for data in batch["data"]]
        reports, problems = [b""] * len(items), ["no report came"] * len(items)
        try:
            for index, result in self._verifier.verify_many(items):
                if isinstance(result, Report):
                    reports[index] = result.model_dump_json().encode()
                else:
                    problems[index] = str(result)
        except VerifierUnavailable as error:
            problems = [str(error)] * len(items)
            if self._server.poll() is not None:
                self._fail()  # so that Ray makes another
        return {**batch, "report": reports, "problem": problems, "worker": [self._name] * len(items)}

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                break
            try:
                self._verifier.describe()
                return
            except VerifierUnavailable:
                time.sleep(1)
        self._fail()

    def _fail(self) -> None:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"toploc serve did not come up or ended: {said[-1] if said else 'it said nothing'}")


def _row(work: Work) -> dict[str, Any]:
    return {"line": work.line, "offset": work.offset, "sha256": work.sha256, "data": work.data}
