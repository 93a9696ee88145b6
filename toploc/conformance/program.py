"""A program under test: started when it is needed, asked one case at a time, ended when it does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import ToplocError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence

MAX_ANSWER: Final = 2**24
"""Bytes of a line. Stops a program that never ends one."""

MAX_STARTS: Final = 10
"""Of one program. Stops the wait for one that ends, or hangs, at every case."""


class NoAnswer(Exception):
    """Why a case has none."""


class Program:
    """A command, which reads a case a line and writes an answer a line. What it says on stderr is left where it goes.

    Used as an asynchronous context manager, at whose end it is killed if closing its input does not end it.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._command = command
        self._timeout = timeout
        self._starts = 0
        self._process: Process | None = None

    async def __aenter__(self) -> Program:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self._timeout)
        await self._end()

    async def ask(self, line: bytes) -> bytes:
        """The line it answers with. Raises NoAnswer, and ToplocError where it cannot be started."""
        process = self._process or await self._start()
        try:
            return await asyncio.wait_for(_exchange(process, line), self._timeout)
        except TimeoutError:
            await self._end()
            raise NoAnswer(f"no answer within {self._timeout:g} s") from None
        except ValueError:
            await self._end()
            raise NoAnswer(f"an answer of more than {MAX_ANSWER:,} bytes") from None
        except EOFError:
            # One that closed its output is about to end with a status that says why.
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 1)
            status = await self._end()
            raise NoAnswer(f"it ended, with status {status}") from None

    async def _start(self) -> Process:
        if self._starts == MAX_STARTS:
            raise NoAnswer(f"not asked: it was started {MAX_STARTS} times")
        self._starts += 1
        try:
            # A session of its own, so that what a shell has started ends with it.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, limit=MAX_ANSWER, start_new_session=True
            )
        except OSError as error:
            raise ToplocError(f"{self._command[0]}: cannot be started: {error.strerror}") from None
        return self._process

    async def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return await process.wait()


async def _exchange(process: Process, line: bytes) -> bytes:
    """Raises EOFError where the program has ended, ValueError where a line is too long."""
    if process.stdin is None or process.stdout is None:
        raise EOFError
    try:
        process.stdin.write(line)
        await process.stdin.drain()
        answer = await process.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        raise EOFError from None
    if not answer.endswith(b"\n"):
        raise EOFError
    return answer
