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
from toploc.errors import MalformedEvidence, ToplocError
from toploc.evidence.candidates import candidates_in
from toploc.foreign import printable
from toploc.page.figures import counted
from toploc.verifier.server import TIMEOUT, AsyncVerifier

from .cluster import RayDispatcher
from .columns import PARTS, Columns
from .dispatch import Dispatcher
from .folder import FolderAudit
from .journal import Journal, Proofless
from .page.page import Page
from .readers import reader_of
from .run import Audit
from .table import Table
from .verdicts import FORMATS, write_verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .entry import Entry
    from .readers import Reader
    from .run import Scan

DESCRIPTION: Final = """\
Has verifiers report on the answers of FILE, and adds them up by model and day. A verifier is any `toploc serve` of the
same weights; with several the load is spread. FILE is evidence, one JSON object {"request": …, "response": …} a line
(.jsonl), or rollouts as rows (.parquet), or a folder of such files.
"""

EPILOG: Final = """\
An audit that is stopped goes on where it was when it is called again; one of a file that has grown goes on with the new
lines.

exit status: 0 if every answer is accepted, or with --without-proofs none shows anything; 1 if any is rejected or all of
them together raise an alarm; 2 if any could not be verified or the call is wrong; 130 if it was stopped by Ctrl-C.

example:
  toploc audit answers.jsonl --verifier http://localhost:8000 --sample 0.1 --out report/
  toploc audit plain.jsonl --without-proofs --verifier http://localhost:8000
  toploc audit rollouts/ --follow --columns prompt_token_ids=prompt,token_ids=completion --verifier http://localhost:8000
  toploc audit answers.jsonl --ray meta-llama/Llama-3.1-8B-Instruct --ray-workers 8 -- --max-model-len 8192
"""


def parser() -> argparse.ArgumentParser:
    audit = argparse.ArgumentParser(
        "toploc audit", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    audit.add_argument("file", metavar="FILE", type=Path, help="evidence or rollouts: JSONL, Parquet, or a folder")
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
    columns = f"of rollouts, as PART=COLUMN,…; parts are {', '.join(PARTS)} (default: columns of these names)"
    option("--columns", default="", metavar="PART=COLUMN,…", help=columns)
    option("--sampling-params", metavar="JSON", help="vLLM's SamplingParams of rows that have none of their own")
    without = "hold answers to their text alone, as those of providers that send no proofs; none is accepted"
    option("--without-proofs", action="store_true", help=without)
    swept = (
        'with --without-proofs: options that they may have been drawn under, as JSON: [{"temperature": 0.6}, …] '
        "(default: the model's and OpenAI's, where a request does not say them)"
    )
    option("--sampling", metavar="JSON", help=swept)
    follow = "take each new file of the folder, until SIGTERM or Ctrl-C; files are to be renamed there when whole"
    option("--follow", action="store_true", help=follow)
    verdicts = "also write a verdict for each row, of folders always (default: as the file of answers)"
    option("--verdicts", choices=FORMATS, help=verdicts)
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
    columns = Columns.parse(args.columns, args.sampling_params)
    proofless = _proofless(args)
    if args.follow or args.file.is_dir():
        return _audit_folder(args, columns, proofless)
    with Journal(args.out, args.file, args.sample, args.seed, proofless) as journal:
        reader = reader_of(args.file, columns)
        audit = Audit(reader, journal)
        try:
            scan = audit.scan()  # 1
            if not scan.lines:
                raise ToplocError(f"{args.file}: no evidence")
            asyncio.run(_verify(audit, args, serve, scan))  # 2
            table = _add_up(audit, reader, args.out, journal)  # 3
            if args.verdicts:
                target = args.out / f"verdicts.{args.verdicts}"
                write_verdicts(target, args.file.name, audit.entries())
        except KeyboardInterrupt:
            print(
                f"\ntoploc audit: stopped with {counted(len(journal.done), 'report')} in {journal.path}; the same call "
                "goes on from there",
                file=sys.stderr,
            )
            return 130
    print(table)
    return _status(table)


def _status(table: Table) -> int:
    if table.total.verdicts["rejected"] or table.alarms.raised or table.surprises.raised:
        return 1
    return 2 if table.total.verdicts["undecided"] > table.unproven.weak else 0


def _proofless(args: argparse.Namespace) -> Proofless | None:
    """Raises ToplocError."""
    if args.sampling is None:
        return Proofless() if args.without_proofs else None
    if not args.without_proofs:
        raise ToplocError("--sampling: goes with --without-proofs; of other answers the request says it")
    try:
        given = json.loads(args.sampling)
        candidates_in(given)
    except ValueError as error:
        raise ToplocError(f"--sampling: no JSON: {error}") from None
    except MalformedEvidence as error:
        raise ToplocError(f"--{error}") from None
    return Proofless(given)


async def _verify(audit: Audit, args: argparse.Namespace, serve: Sequence[str], scan: Scan) -> bool:
    """Whether all was done. Says on standard error how far it is. `serve` are options of Ray's workers."""
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
    return not dispatcher.gave_up


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


def _add_up(audit: Audit, reader: Reader, out: Path, journal: Journal) -> Table:
    table = Table()
    page = Page(reader, journal.draw, table)
    for entry in audit.entries():
        table.add(entry)
        page.add(entry)
    page.write(out / "index.html")
    table.write(out / "summary.json")
    return table


def _audit_folder(args: argparse.Namespace, columns: Columns, proofless: Proofless | None) -> int:
    """Of each of its files, and with `--follow` of those that come. Stopped in the middle, the same call goes on."""
    if not args.file.is_dir():
        raise ToplocError(f"{args.file}: no such folder; --follow takes the one that files are renamed into")
    if args.ray:
        raise ToplocError("--ray: its workers start anew for each file; of a folder give --verifier")

    async def verify(audit: Audit, scan: Scan) -> bool:
        return await _verify(audit, args, (), scan)

    drawn = {"sample": args.sample, "seed": args.seed}
    folder = FolderAudit(args.file, args.out, columns, **drawn, verdicts=args.verdicts, proofless=proofless)
    stopped = asyncio.run(folder.run(verify, _add_up, follow=args.follow))
    print(folder.table)
    if stopped:
        print("toploc audit: stopped; the same call goes on from here", file=sys.stderr)
    if stopped and not args.follow:
        return 130
    return _status(folder.table) or (2 if folder.unread else 0)


def _gpus(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < 10**4:
        raise argparse.ArgumentTypeError(f"expected a number of GPUs, 0 or more, got {text}")
    return number
