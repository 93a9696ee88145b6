"""`toploc audit`: the reports of verifiers on a file of answers, and what they come to."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm  # type: ignore[import-untyped]

from toploc.errors import ToplocError
from toploc.verifier.server import TIMEOUT, AsyncVerifier

from .cluster import RayDispatcher
from .dispatch import Dispatcher
from .journal import Journal
from .page.page import Page
from .run import Audit
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .entry import Entry

DESCRIPTION = """\
Has verifiers report on the answers of FILE, one JSON object {"request": …, "response": …} a line, and adds them up by
model and day. A verifier is any `toploc serve` of the same weights; with several the load is spread.
"""

EPILOG = """\
An audit that is stopped goes on where it was when it is called again; one of a file that has grown goes on with the new
lines.

exit status: 0 if every answer is accepted, 1 if any is rejected or all of them together raise an alarm, 2 if any could
not be verified or the call is wrong, 130 if it was stopped by Ctrl-C.

example:
  toploc audit answers.jsonl --verifier http://localhost:8000 --sample 0.1 --out report/
  toploc audit answers.jsonl --ray meta-llama/Llama-3.1-8B-Instruct --ray-workers 8 -- --max-model-len 8192
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc audit", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("file", metavar="FILE", type=Path, help="evidence: JSONL")
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--verifier", metavar="URL", action="append", help="a server that verifies, any number of times")
    where.add_argument(
        "--ray",
        metavar="MODEL",
        help="have workers on a Ray cluster (RAY_ADDRESS, or this machine) serve MODEL and verify; options of "
        "`toploc serve` for them stand behind --",
    )
    made.add_argument("--ray-workers", type=_count, default=1, metavar="N", help="with --ray (default: 1)")
    made.add_argument(
        "--ray-gpus", type=_seconds, default=1.0, metavar="N", help="of each worker (default: 1; 0 on a CPU)"
    )
    made.add_argument("--api-key-env", metavar="NAME", help="environment variable with the verifiers' API key")
    made.add_argument(
        "--sample", type=_share, default=1.0, metavar="SHARE", help="of the answers, drawn at random (default: 1, all)"
    )
    made.add_argument("--seed", help="that the share is drawn with (default: random, kept in the report)")
    made.add_argument(
        "--out", type=Path, default=Path("report"), metavar="FOLDER", help="for the report (default: report)"
    )
    made.add_argument(
        "--in-flight", type=_count, default=64, metavar="N", help="answers at each verifier at once (default: 64)"
    )
    made.add_argument(
        "--timeout", type=_seconds, default=TIMEOUT, metavar="SECONDS", help=f"for one report (default: {TIMEOUT:g})"
    )
    made.add_argument(
        "--wait",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="for a verifier to come back while none can be reached (default: 60)",
    )
    return made


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, 1, 2 or 130, as the help says. Raises ToplocError for files and addresses that are none."""
    before, after = _split(arguments)
    args = parser().parse_args(before)
    if after and not args.ray:
        parser().error("options after -- are those of --ray's workers")
    with Journal(args.out, args.file, args.sample, args.seed) as journal:
        audit = Audit(args.file, journal)
        try:
            scan = audit.scan()
            if not scan.lines:
                raise ToplocError(f"{args.file}: no evidence")
            asyncio.run(_verify(audit, args, after, scan.chosen, scan.left))
            table = Table()
            page = Page(args.file, journal.draw, table)
            for entry in audit.entries():
                table.add(entry)
                page.add(entry)
            page.write(args.out / "index.html")
        except KeyboardInterrupt:
            print(
                f"\ntoploc audit: stopped with {len(journal.done):,} reports in {journal.path}; the same call goes on "
                "from there",
                file=sys.stderr,
            )
            return 130
    _write(args.out / "summary.json", json.dumps(table.to_json(), ensure_ascii=False, indent=1) + "\n")
    print(table)
    if table.total.verdicts["rejected"] or table.alarms.raised:
        return 1
    return 2 if table.total.verdicts["error"] else 0


async def _verify(audit: Audit, args: argparse.Namespace, serve: Sequence[str], chosen: int, left: int) -> None:
    key = os.environ.get(args.api_key_env) if args.api_key_env else None
    if args.api_key_env and not key:
        raise ToplocError(f"--api-key-env: {args.api_key_env} is not set")
    async with AsyncExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=chosen, initial=chosen - left, unit=" answers", file=sys.stderr, disable=None, smoothing=0.05)
        )
        dispatcher: Dispatcher | RayDispatcher
        if args.ray:
            dispatcher = RayDispatcher(
                [args.ray, *serve],
                workers=args.ray_workers,
                gpus=args.ray_gpus,
                in_flight=args.in_flight,
                timeout=args.timeout,
            )
        else:
            dispatcher = Dispatcher(
                _verifiers(args, key, stack),
                total=left,
                in_flight=args.in_flight,
                wait=args.wait,
                notice=lambda text: tqdm.write(f"toploc audit: {text}", file=sys.stderr),
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


def _verifiers(args: argparse.Namespace, key: str | None, stack: AsyncExitStack) -> list[AsyncVerifier]:
    urls = dict.fromkeys(url.rstrip("/").removesuffix("/v1") for url in args.verifier)
    # Retries are few: work that fails goes to the other verifiers.
    made = [AsyncVerifier(url, api_key=key, timeout=args.timeout, retries=1) for url in urls]
    for verifier in made:
        stack.push_async_callback(verifier.close)
    return made


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands before and behind `--`."""
    if "--" not in arguments:
        return arguments, ()
    place = list(arguments).index("--")
    return arguments[:place], arguments[place + 1 :]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ToplocError(f"{path}: {error.strerror}") from None


def _share(text: str) -> float:
    found = float(text)
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0, up to 1, got {text}")
    return found


def _count(text: str) -> int:
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return found


def _seconds(text: str) -> float:
    found = float(text)
    if not 0 <= found < 10**9:
        raise argparse.ArgumentTypeError(f"expected seconds, got {text}")
    return found
