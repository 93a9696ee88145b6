"""Servers that start from a process which has imported vLLM already.

Each of a server's three processes imports for eight seconds of processor time, so that a start costs thirty. Here one
process of the test session imports once. A server is forked from it, and so are the server's engine and worker from
the server. What comes after the imports is as ever: the command line, the plugins, the engine.

The session's own server starts as users start theirs, and so do those of several front ends, which `prometheus_client`
has to be told of before its import, and those under libfaketime.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE = 2**20
"""Bytes of a command and its environment, at most."""


class Warm:
    """The process that has imported vLLM; a context manager."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self._folder.name, "warm.sock"))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        listener.listen()
        with listener:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


class Forked:
    """A process that another one forked for us; what `LocalServer` needs of a `subprocess.Popen`."""

    def __init__(self, path: str, command: Sequence[str], environment: dict[str, str], log: int) -> None:
        self._keeper = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._keeper.connect(path)
        asked = json.dumps({"command": command, "environment": environment, "folder": str(Path.cwd())})
        socket.send_fds(self._keeper, [asked.encode()], [log])
        self.pid = int(self._keeper.recv(MESSAGE))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._keeper.settimeout(timeout)
            try:
                self.returncode = int(self._keeper.recv(MESSAGE))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired([], timeout or 0) from None
            self._keeper.close()
        return self.returncode


class WarmServer(LocalServer):
    """A `LocalServer` that is forked. `warm` is entered already."""

    def __init__(self, warm: Warm, arguments: Sequence[str], **options: Any) -> None:
        super().__init__(arguments, **options)
        self._warm = warm

    def _start(self, command: Sequence[str]) -> Forked:
        return Forked(self._warm.path, list(command), dict(self._environment), self._log.fileno())


def serve(listener: socket.socket) -> None:
    """Forks a keeper for each connection, for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
        connection.close()


def keep(connection: socket.socket) -> None:
    """Forks the server, and tells its number and then its status. Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, [log], _, _ = socket.recv_fds(connection, MESSAGE, 1)
    server = os.fork()
    if server == 0:
        connection.close()
        become(json.loads(asked), log)
    os.close(log)
    connection.send(str(server).encode())
    _, status = os.waitpid(server, 0)
    with contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(asked: dict[str, Any], log: int) -> None:
    """Runs `python -m MODULE …` or `python FILE …`. Does not return."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    status = 1
    try:
        _, *arguments = asked["command"]
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fork_engines() -> None:
    """Has vLLM fork its engine and worker too. On CPUs it says spawn whatever it is told (vllm/platforms/cpu.py)."""
    import multiprocessing

    import vllm.plugins
    import vllm.utils.system_utils
    import vllm.v1.engine.core
    import vllm.v1.engine.utils
    import vllm.v1.executor.multiproc_executor

    context = multiprocessing.get_context("fork")
    for module in (vllm.utils.system_utils, vllm.v1.engine.utils, vllm.v1.executor.multiproc_executor):
        module.get_mp_context = lambda: context  # type: ignore[attr-defined]
    # Each process loads the plugins for itself, as one that is spawned does.
    os.register_at_fork(after_in_child=lambda: setattr(vllm.plugins, "plugins_loaded", False))


if __name__ == "__main__":
    import vllm.entrypoints.cli.serve
    import vllm.entrypoints.openai.api_server
    import vllm.v1.worker.cpu_worker  # noqa: F401

    fork_engines()
    serve(socket.socket(fileno=int(sys.argv[1])))
