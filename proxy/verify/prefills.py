"""What the engine computes for one evidence, begun as soon as the route comes to a prompt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toploc.evidence.evidence import Answer, Evidence
    from toploc.report import Check
    from toploc.verifier.judge import Computed

    from .engine import Rendered, Scored
    from .verifier import EngineVerifier


class Prefills:
    """Of each choice once, one after another, while the route goes on with what its tokens say.

    Use it in an `async with`, at whose end nothing of it is left in the engine. `alternative`: of the masks that its
    tokens may have been drawn under, see `Engine.alternatives`.
    """

    def __init__(self, verifier: EngineVerifier, evidence: Evidence, alternative: int) -> None:
        self._verifier = verifier
        self._evidence = evidence
        self._alternative = alternative
        self._tasks: dict[int, asyncio.Task[tuple[Computed | Check, Scored | None]]] = {}
        # A request of many choices has no more of the engine than one of one.
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Prefills:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def begin(self, place: int, rendered: Rendered) -> None:
        """Those of the choices of a prompt, by its number."""
        for answer in self._choices(place):
            self._begin(answer, rendered)

    async def scored(self, place: int) -> list[Scored] | None:
        """The log-probabilities of the choices of a prompt whose prefills have begun; None if they are not to be had.

        Raises whatever the engine raises.
        """
        found = [(await self._tasks[answer.index])[1] for answer in self._choices(place)]
        return None if None in found else [scored for scored in found if scored is not None]

    async def computed(self, answer: Answer, rendered: Rendered) -> Computed | Check:
        """What the checks need of a choice. Raises whatever the engine raises."""
        return (await self._begin(answer, rendered))[0]

    def _choices(self, place: int) -> tuple[Answer, ...]:
        size = self._evidence.choices_per_prompt
        return tuple(self._evidence.answers[place * size : (place + 1) * size])

    def _begin(self, answer: Answer, rendered: Rendered) -> asyncio.Task[tuple[Computed | Check, Scored | None]]:
        if answer.index not in self._tasks:
            self._tasks[answer.index] = asyncio.create_task(self._compute(answer, rendered))
        return self._tasks[answer.index]

    async def _compute(self, answer: Answer, rendered: Rendered) -> tuple[Computed | Check, Scored | None]:
        async with self._lock:
            return await self._verifier.compute(self._evidence, answer, rendered, self._alternative)
