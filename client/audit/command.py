"""`toploc audit`: the reports of verifiers on a file of answers, and what they come to."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm  # type: ignore[import-untyped]

from toploc import arguments
from toploc.errors import ToplocError
from toploc.foreign import printable
from toploc.verifier.server import TIMEOUT, AsyncVerifier

from .cluster import RayDispatcher
from .dispatch import Dispatcher
from .figures import counted
from .journal import Journal
from .page.page import Page
from .run import Audit
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .entry import Entry
    from .run import Scan

DESCRIPTION: Final = """\
Has verifiers report on the answers of FILE, one JSON object {"request": …, "response": …} a line, and adds them up by
model and day. A verifier is any `toploc serve` of the same weights; with several the load is spread.
"""

EPILOG: Final = """\
An audit that is stopped goes on where it was when it is called again; one of a file that has grown goes on with the new
lines.

exit status: 0 if every answer is accepted, 1 if any is rejected or all of them together raise an alarm, 2 if any could
not be verified or the call is wrong, 130 if it was stopped by Ctrl-C.

example:
  toploc audit answers.jsonl --verifier http://localhost:8000 --sample 0.1 --out report/
  toploc audit answers.jsonl --ray meta-llama/Llama-3.1-8B-Instruct --ray-workers 8 -- --max-model-len 8192
"""


def parser() -> argparse.ArgumentParser:
    audit = argparse.ArgumentParser(
        "toploc audit", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    audit.add_argument("file", metavar="FILE", type=Path, help="evidence: JSONL")
    where = audit.add_mutually_exclusive_group(required=True)
    where.add_argument("--verifier", metavar="URL", action="append", help="a server that verifies, any number of times")
    where.add_argument(
        "--ray",
        metavar="MODEL",
        help="have workers on a Ray cluster (RAY_ADDRESS, or this machine) serve MODEL and verify; options of "
        "`toploc serve` for them stand behind --",
    )
    option = audit.add_argument
    option("--ray-workers", type=arguments.positive, default=1, metavar="N", help="with --ray (default: 1)")
    option("--ray-gpus", type=_gpus, default=1.0, metavar="N", help="of each worker (default: 1; 0 on a CPU)")
    arguments.add_api_key(audit, "the verifiers'")
    share = "of the answers, drawn at random (default: 1, all)"
    option("--sample", type=arguments.share, default=1.0, metavar="SHARE", help=share)
    option("--seed", help="that the share is drawn with (default: random, kept in the report)")
    option("--out", type=Path, default=Path("report"), metavar="FOLDER", help="for the report (default: report)")
    in_flight = "answers at each verifier at once (default: 64)"
    option("--in-flight", type=arguments.positive, default=64, metavar="N", help=in_flight)
    timeout = f"for one report (default: {TIMEOUT:g})"
    option("--timeout", type=arguments.seconds, default=TIMEOUT, metavar="SECONDS", help=timeout)
    wait = "for a verifier to come back while none can be reached (default: 60)"
    option("--wait", type=arguments.seconds_or_none, default=60.0, metavar="SECONDS", help=wait)
    return audit


def main(argv: Sequence[str]) -> int:
    """Exit status 0, 1, 2 or 130, as the help says. Raises ToplocError for files and addresses that are none.

    1. Finds what is left to do.
    2. Has it verified; each report is kept when it comes.
    3. Adds up all reports, of earlier calls too, and writes them down.
    """
    before, serve = arguments.split(argv)
    args = parser().parse_args(before)
    if serve and not args.ray:
        parser().error("options after -- are those of --ray's workers")
    with Journal(args.out, args.file, args.sample, args.seed) as journal:
        audit = Audit(args.file, journal)
        try:
            scan = audit.scan()  # 1
            if not scan.lines:
                raise ToplocError(f"{args.file}: no evidence")
            asyncio.run(_verify(audit, args, serve, scan))  # 2
            table = _add_up(audit, args, journal)  # 3
        except KeyboardInterrupt:
            print(
                f"\ntoploc audit: stopped with {counted(len(journal.done), 'report')} in {journal.path}; the same call "
                "goes on from there",
                file=sys.stderr,
            )
            return 130
    print(table)
    if table.total.verdicts["rejected"] or table.alarms.raised or table.surprises.raised:
        return 1
    return 2 if table.total.verdicts["undecided"] else 0


async def _verify(audit: Audit, args: argparse.Namespace, serve: Sequence[str], scan: Scan) -> None:
    """Says on standard error how far it is. `serve` are options of Ray's workers."""
    async with AsyncExitStack() as stack:
        dispatcher = _dispatcher(args, serve, scan.left, stack)
        done = scan.chosen - scan.left
        bar = stack.enter_context(
            tqdm(total=scan.chosen, initial=done, unit=" answers", file=sys.stderr, disable=None, smoothing=0.05)
        )
        rejected = 0

        def progress(entry: Entry) -> None:
            nonlocal rejected
            bar.update()
            if entry.report.verdict == "rejected":
                rejected += 1
                bar.set_postfix(rejected=rejected, refresh=False)

        await audit.verify(dispatcher, progress)
    if dispatcher.gave_up:
        print("toploc audit: no verifier is left; the same call goes on from here", file=sys.stderr)


def _dispatcher(
    args: argparse.Namespace, serve: Sequence[str], left: int, stack: AsyncExitStack
) -> Dispatcher | RayDispatcher:
    """Of Ray's workers, or of verifiers that `stack` closes."""
    key = arguments.api_key(args)
    if args.ray:
        return RayDispatcher(
            [args.ray, *serve],
            workers=args.ray_workers,
            gpus=args.ray_gpus,
            in_flight=args.in_flight,
            timeout=args.timeout,
        )
    urls = dict.fromkeys(url.rstrip("/").removesuffix("/v1") for url in args.verifier)
    # Retries are few: work that fails goes to the other verifiers.
    verifiers = [AsyncVerifier(url, api_key=key, timeout=args.timeout, retries=1) for url in urls]
    for verifier in verifiers:
        stack.push_async_callback(verifier.close)
    return Dispatcher(
        verifiers,
        total=left,
        in_flight=args.in_flight,
        wait=args.wait,
        notice=lambda text: tqdm.write(f"toploc audit: {printable(text)}", file=sys.stderr),
    )


def _add_up(audit: Audit, args: argparse.Namespace, journal: Journal) -> Table:
    table = Table()
    page = Page(args.file, journal.draw, table)
    for entry in audit.entries():
        table.add(entry)
        page.add(entry)
    page.write(args.out / "index.html")
    summary = args.out / "summary.json"
    try:
        summary.write_text(json.dumps(table.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise ToplocError(f"{summary}: {error.strerror}") from None
    return table


def _gpus(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < 10**4:
        raise argparse.ArgumentTypeError(f"expected a number of GPUs, 0 or more, got {text}")
    return number
