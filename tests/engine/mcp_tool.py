"""A tool server that `toploc serve --tool-server` runs tools of, by the Model Context Protocol."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn
from mcp.server.mcpserver import MCPServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def tool_server() -> Iterator[str]:
    """Its address. Its only tool is what vLLM takes for OpenAI's code interpreter."""
    # vLLM finds a tool by its server's name, and calls one of that name (vllm/entrypoints/mcp/tool_server.py).
    mcp = MCPServer("python", log_level="WARNING")

    @mcp.tool(name="python")
    def python(code: str) -> str:
        return f"{code} is 42"

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(mcp.sse_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join()
