"""`python -m toploc.conformance COMMAND…`: does a program answer every case as the documents say?"""

from __future__ import annotations

import asyncio
import sys
from argparse import REMAINDER, ArgumentParser, ArgumentTypeError
from math import isfinite
from typing import TYPE_CHECKING

from ..errors import ToplocError
from .answers import problem_of
from .cases import FAMILIES, Case, load
from .program import NoAnswer, Program
from .table import Result, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 if all answers are right, 1 if one is not, 2 where nothing was asked."""
    options = _parser().parse_args(arguments)
    families = options.only or FAMILIES
    cases = [case for family in FAMILIES if family in families for case in load(family)]
    try:
        results = asyncio.run(ask(cases, [options.program, *options.arguments], options.timeout))
    except ToplocError as error:
        print(error, file=sys.stderr)
        return 2
    print(table_of(results))
    return 1 if any(result.problem for result in results) else 0


async def ask(cases: Sequence[Case], command: Sequence[str], timeout: float) -> list[Result]:
    """Every case in its order, one at a time. Raises ToplocError where the command cannot be started."""
    results = []
    async with Program(command, timeout) as program:
        for case in cases:
            try:
                problem = problem_of(await program.ask(case.line), case.id, case.output)
            except NoAnswer as error:
                problem = str(error)
            results.append(Result(case, problem))
    return results


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m toploc.conformance",
        description="Put the vectors to a program: it reads a case a line and writes an answer a line, in JSON.",
        epilog="Exit status: 0 all answers are right, 1 one is not, 2 the program was not asked.",
    )
    parser.add_argument("--only", action="append", choices=FAMILIES, help="this family alone; may be repeated")
    parser.add_argument(
        "--timeout", type=_seconds, default=60, metavar="SECONDS", help="for an answer, the program's start included"
    )
    parser.add_argument("program", metavar="COMMAND", help="the program under test")
    parser.add_argument("arguments", nargs=REMAINDER, metavar="ARGUMENT", help="its arguments")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
