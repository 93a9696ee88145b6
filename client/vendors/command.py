"""`toploc vendors`: providers of one model, asked the same, side by side."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm  # type: ignore[import-untyped]

from toploc.errors import ToplocError

from .asking import Answers, ask
from .comparison import Row, called_by, f1, most_call, row_of
from .config import read_config
from .findings import Counts, look
from .page import page
from .questions import questions
from .table import markdown, to_json
from .verifying import Counter, reports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .asking import Reply
    from .config import Config
    from .findings import Finding
    from .questions import Question

DESCRIPTION: Final = """\
Asks providers of one model the same requests, and compares what they answer: usage, ends, tool calls, streams; and by a
verifier of the claimed model, whether it would have written the text. FILE is a YAML of vendors (docs/audit.md).
"""

EPILOG: Final = """\
A call that is stopped goes on where it was when it is called again. Requests cost what vendors charge.

exit status: 0 if nothing is found of any vendor, 1 if something contradicts, 2 if less than half of a vendor's answers
came or could be told, or the call is wrong, 130 if it was stopped by Ctrl-C.

example:
  toploc vendors vendors.yaml --out comparison/
"""

STATE: Final = "vendors.json"
"""Of the folder: the seed of the canaries."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc vendors", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("file", metavar="FILE", type=Path, help="the vendors, and what they are asked")
    made.add_argument(
        "--out", type=Path, default=Path("vendors"), metavar="FOLDER", help="for the comparison (default: vendors)"
    )
    made.add_argument("--seed", help="that canaries are drawn with (default: random, kept in the folder)")
    return made


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, 1, 2 or 130, as the help says. Raises ToplocError for a file or folder that is none.

    1. Asks each vendor what it has not answered yet.
    2. Looks at each answer, and has the verifier hold it to its text.
    3. Compares, and writes the comparison down.
    """
    args = parser().parse_args(arguments)
    config = read_config(args.file)
    seed = _seed(args.out, args.seed)
    asked = questions(config.requests, seed)
    if not asked:
        raise ToplocError(f"{args.file}: requests: nothing is to be asked; give a number of canaries")
    try:
        rows = asyncio.run(_compare(config, asked, args.out))
    except KeyboardInterrupt:
        print("\ntoploc vendors: stopped; the same call goes on from there", file=sys.stderr)
        return 130
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    text = markdown(rows, made=made)
    _write(args.out / "comparison.md", text)
    _write(args.out / "comparison.json", json.dumps(to_json(rows, made=made, seed=seed), ensure_ascii=False, indent=1))
    _write(args.out / "index.html", page(rows, made=made))
    print(text, end="")
    verdicts = {row.verdict for row in rows}
    return 1 if "contradicted" in verdicts else 2 if "undecided" in verdicts else 0


async def _compare(config: Config, asked: Sequence[Question], out: Path) -> list[Row]:
    kept = {vendor.name: Answers(out / vendor.name) for vendor in config.vendors}
    left = {vendor.name: kept[vendor.name].left(asked) for vendor in config.vendors}
    total = len(asked) * len(config.vendors)
    with tqdm(total=total, unit=" answers", file=sys.stderr, disable=None) as bar:  # 1
        bar.update(total - sum(map(len, left.values())))
        await asyncio.gather(
            *(
                ask(
                    vendor,
                    left[vendor.name],
                    kept[vendor.name],
                    at_once=config.at_once,
                    timeout=config.timeout,
                    progress=bar.update,
                )
                for vendor in config.vendors
            )
        )
    replies = {name: [answers.replies[one.key] for one in asked] for name, answers in kept.items()}
    findings = await _look(config, replies)  # 2
    rows = []
    for vendor in config.vendors:  # 3
        entries = await reports(config, replies[vendor.name])
        rows.append(
            row_of(vendor.name, vendor.model, replies[vendor.name], findings[vendor.name], entries, vendor.price)
        )
    _similar(config, rows, findings)
    return rows


async def _look(config: Config, replies: dict[str, list[Reply]]) -> dict[str, list[Finding]]:
    if config.verifier is None:
        return {name: [look(one, Counts()) for one in listed] for name, listed in replies.items()}
    counter = Counter(config.verifier)
    try:
        return {name: [look(one, await counter.counts(one)) for one in listed] for name, listed in replies.items()}
    finally:
        await counter.close()


def _similar(config: Config, rows: Sequence[Row], findings: dict[str, list[Finding]]) -> None:
    """When tools are called, beside the reference or what most do. Of one vendor alone there is nothing to compare."""
    called = {name: called_by(found) for name, found in findings.items()}
    reference = most_call([*called.values()]) if config.reference is None else called[config.reference]
    for row in rows:
        if len(rows) > 1 and row.vendor != config.reference:
            row.f1 = f1(called[row.vendor], reference)


def _seed(out: Path, given: str | None) -> str:
    """The folder's, which is written where it is new. Raises ToplocError."""
    path = out / STATE
    try:
        known = json.loads(path.read_bytes())["seed"] if path.exists() else None
        if known is None:
            known = given or secrets.token_hex(16)
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"seed": known}) + "\n", "utf-8")
    except OSError as error:
        raise ToplocError(f"{error.filename or path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise ToplocError(f"{path}: not the state of a comparison; choose another --out") from None
    if given not in (None, known):
        raise ToplocError(f"{out}: holds a comparison with another --seed; choose another --out")
    return str(known)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8", "backslashreplace")
    except OSError as error:
        raise ToplocError(f"{path}: {error.strerror}") from None
