"""Calibrates the thresholds of the bundled model, and tells which altered copies they find.

    python -m models.calibrate FOLDER [--answers 3000] [--altered 400]

Answers are kept in FOLDER as evidence, and not made again. The prover is vLLM as this environment has it, the verifier
transformers with sdpa attention, both in bfloat16.
"""

import argparse
from pathlib import Path

import vllm

from toploc.calibration.command import main as calibrate

from . import answers

TARGET = answers.SOURCE.parents[1] / "configs" / "thresholds" / "toploc-mini.yaml"
ALTERED = ("fp8", "int8", "int4", "finetuned", "scaled", "template", "system")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--answers", type=int, default=3000, help="of the model; bounds come from half of them")
    parser.add_argument("--altered", type=int, default=400, help="of each copy")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    honest = answers.write(args.folder / f"{answers.HONEST}.jsonl", answers.HONEST, range(args.answers))
    # Other questions than the model's own.
    others = range(args.answers, args.answers + args.altered)
    files = {kind: answers.write(args.folder / f"{kind}.jsonl", kind, others) for kind in ALTERED}
    named = [f"--altered={kind}={path}" for kind, path in files.items()]
    prover = f"vLLM {vllm.__version__} on a CPU"
    options = ["--model", str(answers.SOURCE), "--name", answers.NAME, "--prover", prover, "--out", str(TARGET)]
    calibrate([str(honest), *named, *options, "--plots", str(args.folder / "plots")])


if __name__ == "__main__":
    main()
