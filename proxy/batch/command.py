"""`toploc run-batch`: `vllm run-batch` whose responses carry proofs.

The requests go to a `toploc serve` over HTTP, so what can be served can be run, receipts and `--toploc-on-error fail`
among it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
from tqdm import tqdm  # type: ignore[import-untyped]

from toploc.errors import ToplocError

from ..local_server import LocalServer
from .lines import Answered, Asked, error, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DESCRIPTION: Final = """\
Asks a model all requests of a batch file, and writes their responses with `toploc_proofs` to another. The formats are
those of OpenAI's batches and of `vllm run-batch`. All other options are those of `toploc serve`.
"""

EPILOG: Final = """\
A line's url is any route of the server that takes JSON. Streams are refused, and so are --enable-metrics and audio by
`file_url`: start `toploc serve` for the first, and `vllm run-batch` for the other, which has no proofs.
exit status: 0, also if some lines have errors; 2 where something is missing or wrong.

example:
  toploc run-batch -i requests.jsonl -o responses.jsonl --model models/toploc-mini --enforce-eager
"""

AT_ONCE: Final = 256
"""Requests on their way. The engine has a queue of its own, and sockets are not without end."""

START_TIMEOUT: Final = 7200.0
"""Seconds for the server to come up, which may have to download weights."""

TIMEOUT: Final = 24 * 3600.0
"""Seconds for one response, with its wait for a place among the others: a batch's day."""

ATTEMPTS: Final = 3
"""At uploading the output."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc run-batch",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("-i", "--input-file", required=True, metavar="FILE|URL", help="requests, one JSON object a line")
    made.add_argument(
        "-o", "--output-file", required=True, metavar="FILE|URL", help="responses, in the same order; a URL is PUT"
    )
    made.add_argument("--model", required=True, help="the model: its name on the hub or its folder")
    made.add_argument("--output-tmp-dir", help="taken and ignored: an upload is made from memory")
    for name in ("--enable-metrics", "--host", "--port", "--url"):
        made.add_argument(name, nargs="?", const=True, help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str]) -> int:
    """Exit status 0. Raises ToplocError for files and servers that cannot be used."""
    args, serve = parser().parse_known_args(arguments)
    if args.enable_metrics:
        raise ToplocError("--enable-metrics: start `toploc serve`, whose /metrics has them, and leave it out here")
    asked = list(read_lines(_read(args.input_file), args.input_file))
    if not _is_url(args.output_file) and not Path(args.output_file).absolute().parent.is_dir():
        raise ToplocError(f"{args.output_file}: there is no such folder")
    print(f"starting toploc serve {args.model}; it takes a minute or more", file=sys.stderr)
    server = LocalServer([args.model, *serve], offline=False, start_timeout=START_TIMEOUT)
    try:
        with server:
            answered = asyncio.run(_ask(server.url, asked, _api_key(serve)))
    except RuntimeError as problem:
        raise ToplocError(f"toploc serve {args.model}: {problem}") from None
    _write(args.output_file, "".join(f"{line.model_dump_json()}\n" for line in answered))
    failed = sum(line.error is not None for line in answered)
    print(f"{args.output_file}: {len(answered):,} responses, {failed:,} of them errors")
    return 0


async def _ask(url: str, lines: Sequence[Asked], api_key: str | None) -> list[Answered]:
    """In the order of the lines."""
    places = asyncio.Semaphore(AT_ONCE)
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    limits = httpx.Limits(max_connections=AT_ONCE)
    with tqdm(total=len(lines), unit=" requests", disable=None) as bar:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, limits=limits) as http:

            async def ask(line: Asked) -> Answered:
                async with places:
                    answered = await _ask_one(http, line)
                bar.update()
                return answered

            return list(await asyncio.gather(*(ask(line) for line in lines)))


async def _ask_one(http: httpx.AsyncClient, line: Asked) -> Answered:
    if line.body.get("stream"):
        return Answered.of(line, 400, error("stream: a batch has whole responses; leave it out", 400))
    try:
        reply = await http.post(line.url, json=line.body)
        body: Any = reply.json()
    except httpx.HTTPError as problem:
        return Answered.of(line, 503, error(f"the server does not answer: {problem or type(problem).__name__}", 503))
    except ValueError:
        return Answered.of(line, 502, error(f"{line.url}: the response is no JSON", 502))
    return Answered.of(line, reply.status_code, body)


def _api_key(serve: Sequence[str]) -> str | None:
    """Of the server that is started here, if it has one."""
    following: Iterator[str] = iter(serve)
    for word in following:
        if word == "--api-key":
            return next(following, None)
        if word.startswith("--api-key="):
            return word.partition("=")[2]
    return None


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _read(name: str) -> str:
    try:
        if _is_url(name):
            return httpx.get(name, follow_redirects=True, timeout=1000).raise_for_status().text
        return Path(name).read_text("utf-8")
    except (OSError, ValueError, httpx.HTTPError) as problem:
        raise ToplocError(f"{name}: cannot be read: {problem}") from None


def _write(name: str, text: str) -> None:
    try:
        if not _is_url(name):
            Path(name).write_text(text, "utf-8")
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                httpx.put(name, content=text.encode(), timeout=1000).raise_for_status()
                return
            except httpx.HTTPError:
                if attempt == ATTEMPTS:
                    raise
    except (OSError, httpx.HTTPError) as problem:
        raise ToplocError(f"{name}: cannot be written: {problem}") from None
