"""What has no counterpart of the same form with `await`; the other modules here are made from `../asynchronous`."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..checker import Checker, Given
    from ..judgement import Judgement


def ask(checker: Checker, given: Given) -> Judgement:
    """What the verifiers say, one after the other."""
    return checker.ask(given)


def settle(reaction: object) -> None:
    """Runs what the application's function gave, if it was a coroutine function."""
    if inspect.iscoroutine(reaction):
        asyncio.run(reaction)
