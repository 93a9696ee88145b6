"""`toploc verify`: the reports on stored answers."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from ..arguments import add_api_key, api_key
from ..errors import ToplocError
from ..evidence.file import items
from ..receipts.keys import load_trusted_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..report import Report

DESCRIPTION: Final = """\
Holds stored answers against a model on this machine: was it this model, this prompt, and are the tokens what it says?

FILE has one JSON object {"request": …, "response": …}, the body that was sent and the object that came back, or one
such object a line (JSONL); - reads standard input.
"""

EPILOG: Final = """\
exit status: 0 if every answer is accepted, 1 if any is rejected, 2 if any could not be verified or the call is wrong.

Thresholds are calibrated for a model and a pair of engines. Without --thresholds the paper's apply, which are loose:
docs/verify.md says what each check shows, docs/evidence.md what it finds.

example:
  toploc verify answers.jsonl --backend transformers --model models/toploc-mini --thresholds toploc-mini
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc verify", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("file", metavar="FILE", help="evidence: JSON or JSONL; - is standard input")
    made.add_argument(
        "--backend",
        choices=["transformers"],
        default="transformers",
        help="what prefills (default: transformers)",
    )
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", metavar="PATH", help="the claimed model's weights, or its name on the hub")
    where.add_argument(
        "--verifier", metavar="URL", help="a server that verifies instead (toploc serve); options about a model are its"
    )
    add_api_key(made, "that server's")
    made.add_argument(
        "--name",
        action="append",
        default=[],
        help="a name the model is served under, any number of times (default: every name, which the report states)",
    )
    made.add_argument(
        "--thresholds", metavar="NAME|FILE", help="a name in configs/thresholds, or a YAML file (default: the paper's)"
    )
    made.add_argument(
        "--trusted-keys",
        metavar="FILE",
        help="public keys of the providers whose receipts count: what `toploc keygen` printed, or GET /v1/toploc",
    )
    made.add_argument(
        "--context-length",
        type=int,
        metavar="N",
        help="the server's --max-model-len, to check answers that end by length",
    )
    made.add_argument(
        "--dtype", choices=["bfloat16", "float16", "float32"], help="of the weights (default: the model's)"
    )
    made.add_argument("--device", default="cpu", help="where the model runs (default: cpu)")
    made.add_argument("--json", action="store_true", help="print each report as a line of JSON")
    return made


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, 1 or 2, as the help says. Raises ToplocError for a file or model that cannot be read."""
    args = parser().parse_args(arguments)
    verdicts = []
    with _open(args.file) as stream, ExitStack() as stack:
        verifier = _load(args)
        stack.callback(getattr(verifier, "close", int))
        for place, data in items(stream):
            report = verifier.verify(data)
            verdicts.append(report.verdict)
            print(report.model_dump_json() if args.json else f"{args.file}:{place}  {report}", flush=True)
    if not verdicts:
        raise ToplocError(f"{args.file}: no evidence")
    if len(verdicts) > 1 and not args.json:
        counts = (f"{count} {verdict}" for verdict, count in sorted(Counter(verdicts).items()))
        print(f"{len(verdicts)} answers: {', '.join(counts)}")
    if "rejected" in verdicts:
        return 1
    return 2 if "undecided" in verdicts else 0


def _open(name: str) -> nullcontext[BinaryIO] | BinaryIO:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise ToplocError(f"{name}: {error.strerror}") from None


class _Verifier(Protocol):
    def verify(self, data: bytes | str) -> Report: ...


def _load(args: argparse.Namespace) -> _Verifier:
    """The verifier; torch and transformers are imported only here, so that `--help` is quick."""
    if args.verifier:
        from .server import Verifier

        return Verifier(args.verifier, api_key=api_key(args))
    from ..thresholds.bounds import Thresholds

    thresholds = Thresholds.load(args.thresholds) if args.thresholds else None
    trusted = load_trusted_keys(args.trusted_keys) if args.trusted_keys else ()
    from .model_name import require_model
    from .prefill import load_prefill
    from .transformers import TransformersVerifier

    require_model(args.model)
    prefill = load_prefill(args.model, args.dtype, args.device)
    return TransformersVerifier(
        prefill, names=args.name, thresholds=thresholds, context_length=args.context_length, trusted_keys=trusted
    )
