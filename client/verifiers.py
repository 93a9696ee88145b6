"""A verifier as a client asks it, under the name that it is shown by."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

import httpx

from toploc.errors import ToplocError, VerifierUnavailable
from toploc.foreign import printable
from toploc.report import Report, refused
from toploc.verifier.server import AsyncVerifier, Verifier

from .judgement import Opinion
from .log import logger
from .options import Verifies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .options import OneVerifier


UNREACHABLE: Final = (VerifierUnavailable, httpx.TransportError, OSError, asyncio.TimeoutError)
"""Errors of a verifier that no answer brings about: the network's, and time that is up."""


class NamedVerifier:
    """A verifier of any kind, under the name that opinions have."""

    def __init__(self, verifier: OneVerifier, api_key: str | None) -> None:
        self._sync: Verifier | None = None
        self._async: AsyncVerifier | None = None
        self._ask: Callable[[bytes], Any]
        if isinstance(verifier, str):
            self.name = verifier
            self._sync = Verifier(verifier, api_key=api_key)
            self._ask = self._sync.verify
            self._async = AsyncVerifier(verifier, api_key=api_key)
        elif isinstance(verifier, Verifies):
            self.name = str(getattr(verifier, "url", type(verifier).__name__))
            self._ask = verifier.verify
        elif callable(verifier):
            self.name = getattr(verifier, "__name__", type(verifier).__name__)
            self._ask = verifier
        else:
            raise ToplocError(f"verifier: expected a URL, an object with `verify` or a function, got {verifier!r}")

    def ask(self, evidence: bytes) -> Opinion:
        try:
            report = self._ask(evidence)
            if inspect.iscoroutine(report):
                report = asyncio.run(report)
            return self._opinion(report)
        except Exception as error:
            return self._problem(error)

    async def ask_async(self, evidence: bytes) -> Opinion:
        try:
            report: Report | Awaitable[Report]
            if self._async is not None:
                report = await self._async.verify(evidence)
            elif inspect.iscoroutinefunction(self._ask):
                report = await self._ask(evidence)
            else:
                report = await asyncio.to_thread(self._ask, evidence)
            return self._opinion(await report if inspect.isawaitable(report) else report)
        except Exception as error:
            return self._problem(error)

    def close(self) -> None:
        if self._sync is not None:
            self._sync.close()

    async def close_async(self) -> None:
        if self._async is not None:
            await self._async.close()

    def _opinion(self, report: object) -> Opinion:
        if not isinstance(report, Report):
            raise ToplocError(f"expected a report, got {type(report).__name__}")
        return Opinion(verifier=self.name, report=report)

    def _problem(self, error: Exception) -> Opinion:
        """Nobody is asked again who cannot be reached. All else may be the doing of who made the answer: undecided."""
        problem = printable(f"{type(error).__name__}: {error}"[:500])
        closed = isinstance(error, RuntimeError) and "client has been closed" in str(error)  # httpx has no other name
        if isinstance(error, UNREACHABLE) or closed:
            return Opinion(verifier=self.name, problem=problem)
        if not isinstance(error, ToplocError):  # of foreign code
            logger.warning("toploc: verifier %s failed: %s", printable(self.name), problem)
        return Opinion(verifier=self.name, report=refused(problem))
