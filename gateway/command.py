"""`toploc gateway`: serves what one YAML says."""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from .app import application
from .config import read_config
from .log import set_up

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

DESCRIPTION: Final = """\
One address for applications, in OpenAI's and Anthropic's protocols: asks the upstreams of FILE, has their answers
checked, and hands on what the policy allows. Needs no engine.
"""

EPILOG: Final = """\
It stops on SIGTERM or Ctrl-C, once the answers in progress are delivered. What is still to be checked waits in the
store.

example:
  toploc gateway configs/gateway.yaml
"""


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, once it was told to stop. Raises InvalidConfig, and StoreUnavailable for a store that is none."""
    options = parser().parse_args(arguments)
    config = read_config(options.file)
    set_up(config.log)
    app = application(config)
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=int(config.timeouts.stop) or 1,
        )
    )
    if options.check:
        print(f"{options.file}: {len(config.upstreams)} upstreams")
        return 0
    asyncio.run(app.state.gateway.database.probe())
    # uvicorn raises the signal that stopped it once more when all is done, which would end this process by it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run()
    return 0


class _Server(uvicorn.Server):
    """Ends the streams of open pages before it waits for replies to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.page.live.close()
        await super().shutdown(sockets)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc gateway",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="FILE", help="the configuration (docs/gateway.md)")
    made.add_argument("--check", action="store_true", help="only says whether FILE can be used")
    return made
