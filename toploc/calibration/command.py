"""`toploc calibrate`: thresholds for a model, from stored honest answers."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..arguments import rate
from ..errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..thresholds.bounds import Thresholds
    from ..thresholds.pooled import PooledBounds
    from ..verifier.transformers import TransformersVerifier
    from .document import Calibration
    from .samples import Sample

DESCRIPTION: Final = """\
Takes thresholds from HONEST, answers that the claimed model surely made: one JSON object {"request": …, "response": …}
a line, as `toploc generate` and `toploc_client.EvidenceFile` write it. Every answer is prefilled here and held against
its proofs. Bounds come from every second answer; on the others false alarms are counted, and proofs tried that were
made without the computation.
"""

EPILOG: Final = """\
exit status: 0, or 2 where the call is wrong or the answers are too few. docs/calibration.md goes through it.

example:
  toploc calibrate honest.jsonl --altered int4=int4.jsonl --model models/toploc-mini --name toploc-mini \\
    --out configs/thresholds/toploc-mini.yaml
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc calibrate", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_answers(made)
    _add_bounds(made)
    made.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help="YAML; what it has for the check on tokens is kept, but for bounds finer than a step of the logits",
    )
    made.add_argument("--plots", metavar="DIR", type=Path, help="for figures as PNG and SVG; needs matplotlib")
    made.add_argument(
        "--dtype", choices=["bfloat16", "float16", "float32"], help="of the weights (default: the model's)"
    )
    made.add_argument("--device", default="cpu", help="where the model runs (default: cpu)")
    return made


def _add_answers(made: argparse.ArgumentParser) -> None:
    made.add_argument("honest", metavar="HONEST", type=Path, help="evidence of the model itself: JSONL")
    made.add_argument(
        "--altered",
        metavar="NAME=FILE",
        type=_altered,
        action="append",
        default=[],
        help="evidence of a copy under the model's name, to tell how much of it is found; any number of times",
    )
    made.add_argument("--model", metavar="PATH", required=True, help="the model's weights, or its name on the hub")
    made.add_argument("--name", required=True, help="the served name that the thresholds are for")
    made.add_argument("--prover", metavar="TEXT", help="engine that made the answers, and its mode, for the provenance")


def _add_bounds(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--target-false-alarm",
        metavar="RATE",
        type=rate,
        default=1e-4,
        help="of honest chunks that the bounds may refuse (default: 1e-4)",
    )
    made.add_argument(
        "--confidence", metavar="SHARE", type=rate, default=0.95, help="of bounds and intervals (default: 0.95)"
    )
    made.add_argument(
        "--pooled",
        action="store_true",
        help="write bounds on the mean error of an answer too, and a test over answers against each --altered: they "
        "hold for one configuration of the prover's engine, which --prover has to say",
    )
    made.add_argument(
        "--target-false-alarm-answer",
        metavar="RATE",
        type=rate,
        default=1e-3,
        help="of honest answers that the bound on an answer may refuse (default: 1e-3)",
    )
    made.add_argument(
        "--pair",
        action="store_true",
        help="add the bounds to FILE as those of the engine that the answers name and of this verifier's, in place of "
        "the model's own, which they only tighten",
    )


def main(arguments: Sequence[str]) -> int:
    """Exit status 0. Raises ToplocError for files, models and answers that no thresholds can be taken from."""
    args = parser().parse_args(arguments)
    _check(args)
    _require_enough(args.honest)
    print(f"loading {args.model}", file=sys.stderr, flush=True)
    from ..thresholds.bounds import Thresholds
    from ..verifier.prefill import load_prefill
    from ..verifier.transformers import TransformersVerifier
    from .bounds import bounds_of
    from .document import Calibration

    known = Thresholds.load(args.out) if args.out.exists() else None
    scored = known is not None and known.tokens is not None and not args.pair
    verifier = TransformersVerifier(load_prefill(args.model, args.dtype, args.device), names=[args.name], scored=scored)
    paper = Thresholds.paper(verifier.prefill.proof_dtype)
    honest = _samples(args.honest, verifier)
    fitted = [sample for sample in honest if sample.answer % 2 == 0]
    bounds = bounds_of(fitted, paper, target=args.target_false_alarm, confidence=args.confidence)
    said = args.prover or "a server", f"transformers {version('transformers')} on {args.device}"
    made = Calibration(honest, bounds, args.target_false_alarm, args.confidence, *said)
    altered = {name: _samples(path, verifier, strict=False) for name, path in args.altered}
    if args.pair:
        document, pooled = made.with_pair(_read(args.out), verifier.prefill.engine), ""
    else:
        document = made.of_model(args.out.stem, args.name, paper, known)
        found, pooled = _pooled(args, honest, altered, paper, verifier.prefill.hidden_size)
        if args.pooled and found is not None:
            document["pooled"] = found.model_dump()
    _write(args.out, document)
    _report(args, made, Thresholds.from_dict({**document, "bounds": made.listed, "pairs": []}), altered, pooled)
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be said before the work is done. Raises ToplocError."""
    if args.out.suffix != ".yaml":
        raise ToplocError(f"--out: expected a name that ends in .yaml, got {args.out}")
    for path in (args.honest, *(path for _, path in args.altered)):
        if not path.is_file():
            raise ToplocError(f"{path}: no such file")
    if args.pooled and not args.prover:
        raise ToplocError("--pooled: say with --prover which engine made the answers, and how it was configured")
    if args.pair and args.pooled:
        raise ToplocError("--pair: bounds on whole answers are the model's own; leave out --pooled")
    if args.pair and not args.out.is_file():
        raise ToplocError(f"--pair: {args.out}: no such file; calibrate the model's own bounds first, without --pair")
    for package in ("scipy", "matplotlib") if args.plots else ("scipy",):
        if find_spec(package) is None:
            raise ToplocError(f"toploc calibrate: {package} is not installed; pip install 'toploc-proxy[calibrate]'")
    from ..verifier.model_name import require_model

    require_model(args.model)


def _report(
    args: argparse.Namespace,
    made: Calibration,
    thresholds: Thresholds,
    altered: Mapping[str, Sequence[Sample]],
    pooled: str,
) -> None:
    """Prints what the bounds are, and what they find."""
    from ..checks.proofs import MOST_IMPOSTORS
    from ..thresholds.bounds import Thresholds
    from . import plots, tables
    from .document import worst_of

    tried, paper = made.try_out(thresholds), Thresholds.paper(thresholds.dtype)
    print(tables.bounds_table(made.fitted, made.bounds, tried), end="\n\n")
    writers = {"the model, held out": made.counted, **altered}
    print(tables.writers_table(writers, thresholds, paper, args.confidence))
    if pooled:
        print(f"\n{pooled}")
    if (worst := worst_of(tried)) > MOST_IMPOSTORS:
        print(
            f"\nThis model's proofs do not discriminate: of proofs made without the computation {worst:.1%} pass at "
            "some length of a chunk. `toploc serve` and `toploc verify` will say so in place of accepting."
        )
    if args.plots:
        for path in plots.draw(args.plots, {"the model": made.honest, **altered}, thresholds):
            print(f"wrote {path}", file=sys.stderr)


def _require_enough(path: Path) -> None:
    """Raises TooFewAnswers before a model is loaded for them."""
    from .enough import require_enough

    with _bar(path, "reading") as bar:
        chunks, answers = require_enough(path, bar.update)
    print(f"{path}: {chunks:,} chunks of {answers:,} answers", file=sys.stderr, flush=True)


def _samples(path: Path, verifier: TransformersVerifier, *, strict: bool = True) -> list[Sample]:
    from .samples import samples_of

    with _bar(path, path.name) as bar:
        return samples_of(path, verifier, strict=strict, progress=bar.update)


def _bar(path: Path, does: str) -> Any:
    """A progress bar over the lines of a file, with a line at its start where no terminal shows a bar."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    with path.open("rb") as file:
        lines = sum(1 for line in file if line.strip())
    if not sys.stderr.isatty():
        print(f"{does}: {lines:,} lines", file=sys.stderr, flush=True)
    return tqdm(total=lines, unit=" answers", desc=does, disable=None)


def _pooled(
    args: argparse.Namespace,
    honest: Sequence[Sample],
    altered: Mapping[str, Sequence[Sample]],
    paper: Thresholds,
    hidden_size: int,
) -> tuple[PooledBounds | None, str]:
    """Bounds on answers with the table of what they gain, or why there are none, which `--pooled` raises."""
    from . import tables
    from .noise import noise_of
    from .pooled import gain, pooled_bounds, scores_of
    from .samples import engine_of

    try:
        noise = noise_of(honest, hidden_size, paper.dtype)
        scores = scores_of(honest, paper, noise)
        copies = {name: scores_of(samples, paper, noise) for name, samples in altered.items()}
        made = pooled_bounds(
            scores,
            copies,
            target=args.target_false_alarm_answer,
            confidence=args.confidence,
            provenance=args.prover or "not said",
            engine=engine_of(honest),
            noise=noise,
        )
    except ToplocError as error:
        if args.pooled:
            raise
        return None, f"No bound on the error of a whole answer: {error}"
    gains = {"the model, held out": gain(scores, made, scores, confidence=args.confidence)}
    gains |= {name: gain(found, made, scores, name, args.confidence) for name, found in copies.items()}
    kept = "" if args.pooled else "\n\nNot written without --pooled."
    return made, tables.pooled_table(made, gains) + kept


def _read(path: Path) -> dict[str, Any]:
    """A file that `Thresholds.load` has read."""
    import yaml

    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    import yaml

    try:
        path.write_text(yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True), "utf-8")
    except OSError as error:
        raise ToplocError(f"{path}: {error.strerror}") from None
    print(f"wrote {path}", file=sys.stderr)


def _altered(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text}")
    return name, Path(path)
