"""A `toploc serve` on a free local port, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_TIMEOUT: Final = 300.0
"""Seconds for a server to come up, its first compilations included."""

STOP_TIMEOUT: Final = 30.0
"""Seconds for it to end by itself, before it is killed."""


class Process(Protocol):
    """What is used of a `subprocess.Popen`: the leader of a process group."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class LocalServer:
    """Starts a server, waits until it answers, and stops it with everything it started.

    Args:
        arguments: after `toploc serve`, or after `command` if given.
        command: what to run instead, for comparison.
        progress: print a dot every two seconds while waiting.
        offline: never ask the Hugging Face hub.
        start_timeout: seconds until it has to answer.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        progress: bool = False,
        offline: bool = True,
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = command or (sys.executable, "-m", "toploc", "serve")
        self._arguments = [*arguments, "--host", "127.0.0.1", "--port", str(self.port)]
        hub = {"HF_HUB_OFFLINE": "1"} if offline else {}
        # In GiB; without it vLLM on a CPU takes most of the memory. It goes before the flag.
        cache = {} if "--kv-cache-memory-bytes" in arguments else {"VLLM_CPU_KVCACHE_SPACE": "1"}
        self._environment = {**cache, **os.environ, **hub, **(environment or {})}
        self._start_timeout = start_timeout
        self._progress = progress
        self._log = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> Self:
        self._process = self._start([*self._command, *self._arguments])
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, seconds: float) -> int:
        """The exit status, once the server has ended by itself. Raises subprocess.TimeoutExpired."""
        return self._process.wait(seconds)

    def log(self) -> str:
        """Everything the server has printed so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _start(self, command: Sequence[str]) -> Process:
        return subprocess.Popen(  # noqa: S603
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # A process group of its own, to stop the engine and its workers with it. Ctrl-C reaches only us.
            start_new_session=True,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server stopped with status {self._process.returncode}:\n{self.log()[-12000:]}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).is_success:
                    return
            except httpx.HTTPError:
                pass
            if self._progress:
                print(".", end="", flush=True)
            time.sleep(1)
        raise RuntimeError(f"the server was not ready after {self._start_timeout:g} s:\n{self.log()[-12000:]}")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def free_port() -> int:
    """One that nobody listens on now; nothing keeps it for the caller."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
