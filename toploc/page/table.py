"""Evidence that a browser brings as Parquet, as lines of JSON.

It is read by a process of its own: a table of some bytes may unpack to gigabytes, and this server has others to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
from typing import Final

from ..errors import ToplocError
from ..scheme import MAX_ITEMS

MEMORY: Final = 4 * 2**30
"""Bytes of address space that the process may take."""

LINES: Final = 256 * 2**20
"""Bytes of its lines."""

SECONDS: Final = 60.0

AT_ONCE: Final = 2
"""Tables that are read at once; more wait."""

NEEDS: Final = (
    "this server cannot read Parquet: it has no pyarrow (`pip install pyarrow`); bring a JSON object a line, as "
    "`toploc.evidence.parquet.from_parquet` writes it"
)


class UnreadableTable(ToplocError):
    """`missing`: because this server cannot read any."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class Tables:
    """Reads one table after another."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)

    async def lines(self, table: bytes) -> bytes:
        """Of at most `MAX_ITEMS` rows. Raises UnreadableTable."""
        if importlib.util.find_spec("pyarrow") is None:
            raise UnreadableTable(NEEDS, missing=True)
        async with self._places:
            environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", f"from {__name__} import main; main()"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
            )
            try:
                async with asyncio.timeout(SECONDS):
                    made, _ = await process.communicate(table)
            except TimeoutError:
                raise UnreadableTable(f"the table was not read within {SECONDS:g} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            said = made.decode(errors="replace")
            raise UnreadableTable(said or "the process that read the table ended early")
        return made


def main() -> None:
    """From standard input to standard output."""
    import resource
    import tempfile

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from ..evidence.parquet import from_parquet

    made, size = list[bytes](), 0
    with tempfile.NamedTemporaryFile() as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        try:
            for line in from_parquet(file.name):
                if len(made) == MAX_ITEMS:
                    _fail(f"the table has more than {MAX_ITEMS:,} rows; give it to `toploc audit`")
                size += len(line)
                if size > LINES:
                    _fail(f"the table unpacks to more than {LINES:,} bytes; give it to `toploc audit`")
                made.append(line)
        except KeyError as error:
            _fail(f"the table has no column {error}; evidence has `request` and `response`")
        except MemoryError:
            _fail(f"the table unpacks to more than {MEMORY:,} bytes; give it to `toploc audit`")
        except (OSError, ValueError) as error:
            _fail(f"the table cannot be read: {type(error).__name__}")
    sys.stdout.buffer.write(b"\n".join(line.replace(b"\n", b" ").replace(b"\r", b" ") for line in made))


def _fail(message: str) -> None:
    sys.stdout.write(message)
    sys.stdout.flush()
    os._exit(1)
