"""Tools that the server runs itself: in a rehearsal they give what the response says that they gave, and none runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class UnknownOutput(ToplocError):
    """The response does not say what a tool gave."""

    def __init__(self) -> None:
        super().__init__("the response does not say what the tool before this turn gave")


replayed: ContextVar[Iterator[str] | None] = ContextVar("toploc_tools", default=None)
"""What the tools of the rehearsal that runs here gave, in order; None outside of one."""


class ReplayedTools:
    """Stands before a `ToolServer` (vllm/entrypoints/mcp/tool_server.py), and is it outside of rehearsals."""

    def __init__(self, tools: Any) -> None:
        self._tools = tools

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tools, name)

    @asynccontextmanager
    async def new_session(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        outputs = replayed.get()
        if outputs is not None:
            yield _Session(outputs)
            return
        async with self._tools.new_session(*args, **kwargs) as session:
            yield session


class _Session:
    """What contexts ask of a session of the Model Context Protocol (vllm/entrypoints/openai/responses/context.py)."""

    _client_info = "a rehearsal"

    def __init__(self, outputs: Iterator[str]) -> None:
        self._outputs = outputs

    async def call_tool(self, name: str, _: Any) -> Any:
        """Raises UnknownOutput."""
        if name == "cleanup_session":
            return None
        text = next(self._outputs, None)
        if text is None:
            raise UnknownOutput
        return SimpleNamespace(content=[SimpleNamespace(text=text)])
