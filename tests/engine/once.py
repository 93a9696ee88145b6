"""`toploc serve` with a verifier that computes once for all evidence of one request and its proofs.

Thousands of responses that differ in what they say beside one list of tokens are then judged within a minute, by the
code of the route: it reads each, compares it with the rehearsed one, and makes the report.

- A rehearsal, a prefill and the checks on tokens and proofs are remembered, by all that they are given.
- `?as=reasoning` and `?as=turns` verify as servers with other parsers: `GROUPS` has their flags.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send
    from toploc_proxy.engines.vllm.rehearsal import Rehearsal
    from toploc_proxy.verify.verifier import EngineVerifier
    from vllm.engine.protocol import EngineClient

    from toploc.evidence.evidence import Answer, Evidence
    from toploc.report import Check

PARSER = Path(__file__).parents[1] / "toploc" / "asked" / "thoughts.py"
TURNS = "VLLM_USE_EXPERIMENTAL_PARSER_CONTEXT"
group: ContextVar[bytes] = ContextVar("group", default=b"")


class Grouped:
    """Reads the group of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        group.set(scope.get("query_string", b"").removeprefix(b"as="))
        await self.app(scope, receive, send)


class Rehearsals:
    """Those of the server's routes as it was started, and as one with a parser of reasoning has them."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._reasoning: Rehearsal | None = None
        self._lock = asyncio.Lock()

    async def make(self, engine: EngineClient, args: Any) -> None:
        from starlette.datastructures import State
        from toploc_proxy.engines.vllm.rehearsal import Rehearsal
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.reasoning import ReasoningParserManager

        ReasoningParserManager.import_reasoning_parser(str(PARSER))
        state, before = State(), args.structured_outputs_config.reasoning_parser
        args.structured_outputs_config.reasoning_parser = "thoughts"
        await init_app_state(engine, state, args, await engine.get_supported_tasks())
        args.structured_outputs_config.reasoning_parser = before
        self._reasoning = Rehearsal(state, engine)

    async def perform(
        self, rehearsal: Rehearsal, perform: Callable[..., Awaitable[Any]], *given: Any, **way: bool
    ) -> Any:
        """By all that a rehearsal is given, but what computes beside it."""
        route, body, choices, prefills, outputs = given
        key = json.dumps([group.get().decode(), route, body, choices, [*outputs], way])
        async with self._lock:
            if key not in self._known:
                chosen = self._reasoning if group.get() == b"reasoning" else rehearsal
                with environment(TURNS, "1" if group.get() == b"turns" else "0"):
                    self._known[key] = await perform(chosen, route, body, choices, prefills, outputs, **way)
        return self._known[key]


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    yield
    del os.environ[name]


def computing_once(compute: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """By the request, which makes the prompt and the options, and what the field says of the choice."""
    known: dict[str, Any] = {}

    async def once(self: EngineVerifier, evidence: Evidence, answer: Answer, rendered: Any, *which: int) -> Any:
        key = json.dumps([group.get().decode(), evidence.source[0], said(evidence, answer), which])
        if key not in known:
            known[key] = await compute(self, evidence, answer, rendered, *which)
        return known[key]

    return once


def judging_once(judge: Callable[..., Iterator[Check]]) -> Callable[..., list[Check]]:
    """The checks on prompt, proofs and tokens: of what was computed, and what the field says of the choice."""
    known: dict[tuple[int, str], list[Check]] = {}
    kept: list[Any] = []

    def once(evidence: Evidence, answer: Answer, policy: Any, computed: Any) -> list[Check]:
        key = id(computed), json.dumps(said(evidence, answer))
        if key not in known:
            kept.append(computed)  # whose number is then no other's
            known[key] = [*judge(evidence, answer, policy, computed)]
        return known[key]

    return once


def said(evidence: Evidence, answer: Answer) -> list[Any]:
    parts = [part.model_dump(mode="json") for part in (answer.proofs, answer.prompt)]
    return [answer.index, *parts, evidence.proofs.sampler, evidence.proofs.dtype]


def main() -> None:
    # Not above: an engine imports this file once more, and must not have numba before its own start.
    from toploc_proxy import application
    from toploc_proxy.engines.vllm import startup
    from toploc_proxy.engines.vllm.rehearsal import Rehearsal
    from toploc_proxy.engines.vllm.serve.command import main as serve
    from toploc_proxy.verify.verifier import EngineVerifier

    from toploc.verifier import judge

    rehearsals, attach, connect = Rehearsals(), application.attach, startup.connect

    def attach_grouped(app: Any, settings: Any) -> None:
        attach(app, settings)
        app.add_middleware(Grouped)

    async def connect_all(engine: Any, state: Any, args: Any, settings: Any) -> None:
        startup.connect = nothing
        await rehearsals.make(engine, args)
        await connect(engine, state, args, settings)

    async def nothing(*_: Any) -> None:
        """In place of connecting, while the other group's routes are made."""

    application.attach, startup.connect = attach_grouped, connect_all
    perform = Rehearsal.perform
    Rehearsal.perform = lambda self, *given, **way: rehearsals.perform(self, perform, *given, **way)  # type: ignore[method-assign]
    EngineVerifier.compute = computing_once(EngineVerifier.compute)  # type: ignore[method-assign]
    judge._of_choice = judging_once(judge._of_choice)  # type: ignore[assignment]
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
