"""What has no counterpart of the same form without `await`: `../synchronous/waiting.py` is written by hand too."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..checker import Checker, Given
    from ..judgement import Judgement


async def ask(checker: Checker, given: Given) -> Judgement:
    """What the verifiers say, all asked at once."""
    return await checker.ask_async(given)


async def settle(reaction: object) -> None:
    """Waits for what the application's function gave, if it was a coroutine function."""
    if inspect.isawaitable(reaction):
        await reaction
