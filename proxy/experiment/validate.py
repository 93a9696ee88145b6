"""`toploc validate`: the answers of `toploc generate`, held against another prefill of their tokens."""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from tqdm import tqdm  # type: ignore[import-untyped]

from toploc.arguments import positive
from toploc.errors import ToplocError
from toploc.evidence.file import EvidenceFile, read_lines
from toploc.report import Report
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.model_name import require_model

from .flags import add_flag, parse
from .folder import Experiment, file_name, load_llm
from .table import line, require_pyarrow, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Verifies = Callable[[Iterable[bytes]], Iterator[Report]]

DESCRIPTION: Final = """\
Prefills the answers that `toploc generate` kept and holds their proofs against it. For each answer it prints
VERIFICATION PASSED or VERIFICATION FAILED with its worst figures, and it writes a table of all chunks into
SAVE_DIR/DECODE_MODEL. The flags are those of the original's script; underscores may be dashes. What is after -- are
options of the engine, as `toploc serve` has them, with --backend vllm. The check on tokens is not done: `toploc verify`
does it.
"""

EPILOG: Final = """\
Stopped, the same call goes on. exit status: 0 if all answers passed, 1 if any failed, 2 if any could not be checked.

example:
  toploc validate --decode_model_name models/toploc-mini --validate_model_name models/toploc-mini --save_dir signatures
"""

ATTENTION: Final = {
    "transformers": {
        "flash": "flash_attention_2",
        "sdpa": "sdpa",
        "eager": "eager",
        "flex": "flex_attention",
    },
    "vllm": {"flash": "FLASH_ATTN", "flex": "FLEX_ATTENTION"},
}

LEFT_OUT: Final = "tokens"
"""The check that is about who wrote the text, and not about activations."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc validate", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flag(made, "decode_model_name", required=True, help="--model_name of `toploc generate`")
    add_flag(made, "validate_model_name", required=True, help="the model to prefill with: a name or a folder")
    add_flag(made, "tp", type=positive, default=1, help="GPUs that share the model, with --backend vllm (default: 1)")
    add_flag(made, "n_samples", type=positive, help="answers, the data set's first (default: all that are there)")
    add_flag(made, "save_dir", type=Path, default=Path("signatures"), help="(default: signatures)")
    add_flag(made, "max_decode_tokens", type=positive, help="has to be that of `toploc generate`, if given")
    add_flag(made, "dataset_name", help="has to be that of `toploc generate`, if given")
    add_flag(made, "dtype", default="bfloat16", help="of weights and activations (default: bfloat16)")
    add_flag(
        made,
        "attn",
        choices=["flash", "sdpa", "eager", "flex"],
        help="attention; vLLM has flash and flex (default: flash where transformers has it, else sdpa; vLLM's own)",
    )
    add_flag(made, "backend", choices=list(ATTENTION), default="transformers", help="(default: transformers)")
    add_flag(
        made,
        "thresholds",
        metavar="NAME_OR_FILE",
        help="a name in configs/thresholds or a YAML file (default: the paper's, 10, 8 and 90 of 128)",
    )
    add_flag(made, "device", help="of transformers (default: cuda where there is one, else cpu)")
    return made


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, 1 or 2, as the help says. Raises ToplocError for folders and models that cannot be used."""
    args, serve = parse(parser(), arguments)
    _check(args, serve)
    require_model(args.validate_model_name, "--validate_model_name")
    experiment = Experiment(args.save_dir, args.decode_model_name)
    given = {name: getattr(args, name) for name in ("max_decode_tokens", "dataset_name") if getattr(args, name)}
    experiment.expect(given)
    answers = dict(sorted(experiment.answers()))
    if args.n_samples is not None:
        answers = {sample: data for sample, data in answers.items() if sample < args.n_samples}
    if not answers or len(answers) < (args.n_samples or 0):
        raise ToplocError(
            f"{experiment.evidence.path}: {len(answers)} of {args.n_samples or 'the'} answers are there; "
            "`toploc generate` makes the rest"
        )
    thresholds = Thresholds.load(args.thresholds) if args.thresholds else None
    attention = args.attn or "default"
    dtype = args.dtype
    target = experiment.path / (
        f"validation_{file_name(args.validate_model_name)}_{args.backend}_{attention}_{dtype}_tp{args.tp}.parquet"
    )
    require_pyarrow(target)
    journal = _Journal(target.with_suffix(".jsonl"), (thresholds, serve, args.device))
    left = {sample: data for sample, data in answers.items() if journal.find(data) is None}
    reports: dict[int, Report] = {}
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(answers), unit=" answers", disable=None))
        made = _verified(args, serve, left, stack) if left else iter(())
        for sample, data in answers.items():
            report = journal.find(data)
            if report is None:
                report = next(made)
                journal.add(data, report)
            reports[sample] = report
            bar.update()
            tqdm.write(line(report))
    write_table(target, args, reports)
    verdicts = [report.verdict for report in reports.values()]
    print(f"{verdicts.count('accepted')} of {len(verdicts)} answers passed; {target}")
    if "rejected" in verdicts:
        return 1
    return 2 if "undecided" in verdicts else 0


def _check(args: argparse.Namespace, serve: Sequence[str]) -> None:
    if args.attn and args.attn not in ATTENTION[args.backend]:
        raise ToplocError(f"--attn {args.attn}: {args.backend} has {' and '.join(ATTENTION[args.backend])}")
    if args.backend == "transformers":
        if args.tp > 1:
            raise ToplocError(f"--tp {args.tp}: transformers has one device here; give --backend vllm or --tp 1")
        if serve:
            raise ToplocError(f"{' '.join(serve)}: options of the engine need --backend vllm")
    if args.attn == "flash" and args.backend == "transformers" and find_spec("flash_attn") is None:
        raise ToplocError("--attn flash: the package flash-attn is not installed; give --attn sdpa or --backend vllm")
    if args.device and args.backend == "vllm":
        raise ToplocError("--device: vLLM chooses its own; leave it out, or give --backend transformers")


def _verified(
    args: argparse.Namespace, serve: Sequence[str], answers: Mapping[int, bytes], stack: ExitStack
) -> Iterator[Report]:
    """A report on each answer, in order."""
    verify = (_by_vllm if args.backend == "vllm" else _by_transformers)(args, serve, stack)
    for report in verify(answers.values()):
        yield Report.of([check for check in report.checks if check.name != LEFT_OUT], model=report.model)


def _by_transformers(args: argparse.Namespace, _: Sequence[str], __: ExitStack) -> Verifies:
    import torch

    from toploc.verifier.prefill import load_prefill
    from toploc.verifier.transformers import TransformersVerifier

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    attention = args.attn or ("flash" if device != "cpu" and find_spec("flash_attn") else "sdpa")
    prefill = load_prefill(args.validate_model_name, args.dtype, device, attention=ATTENTION["transformers"][attention])
    thresholds = Thresholds.load(args.thresholds) if args.thresholds else None
    verifier = TransformersVerifier(prefill, names=[args.decode_model_name], thresholds=thresholds, scored=False)
    return partial(map, verifier.verify)


def _by_vllm(args: argparse.Namespace, serve: Sequence[str], stack: ExitStack) -> Verifies:
    options = [*serve]
    if args.attn:
        options += ["--attention-backend", ATTENTION["vllm"][args.attn]]
    # Without, an engine takes those that were calibrated for its model.
    options += ["--toploc-thresholds", args.thresholds or f"paper-{_proof_dtype(args.dtype)}"]
    names = args.validate_model_name, args.decode_model_name
    llm = stack.enter_context(load_llm(*names, dtype=args.dtype, tp=args.tp, options=options))
    from ..engines.vllm.offline.answers import reports_on

    return partial(reports_on, llm)


def _proof_dtype(dtype: str) -> str:
    return "float16" if dtype in ("float16", "half") else "bfloat16"


class _Journal:
    """Reports that an interrupted call has made; `settings` are what they depend on beside the file's name."""

    def __init__(self, path: Path, settings: object) -> None:
        self._file = EvidenceFile(path)
        self._settings = repr(settings).encode()
        self._known: dict[str, Report] = {}
        for stored in read_lines(path) if path.exists() else ():
            try:
                entry = json.loads(stored.data or b"")
                self._known[entry["key"]] = Report.model_validate(entry["report"])
            except (ValueError, LookupError, TypeError, ValidationError):
                continue

    def find(self, data: bytes) -> Report | None:
        return self._known.get(self._key(data))

    def add(self, data: bytes, report: Report) -> None:
        entry = {"key": self._key(data), "report": report.model_dump(mode="json")}
        self._file.append_json(json.dumps(entry, ensure_ascii=False).encode())

    def _key(self, data: bytes) -> str:
        return hashlib.sha256(self._settings + b"\n" + data).hexdigest()
