"""Has a model and altered copies of it answer, and measures how far their proofs are from honest states.

    python benchmarks/evidence/measure.py FOLDER --engine graphs --output rows.jsonl [--seconds 200]

Every row goes to the file when it is done, and rows that are there are left out, so that a run goes on where one ended.
Engines (engines.py): `graphs`, `eager` (and prefill in chunks of 128 tokens), `triton` (another attention), `fp8`
(weights), `fp8-kv` and `int8-kv` (KV cache), `rope` (scaled positions) and `window` (attention to fewer tokens) are
vLLM's, `transformers` is a prover by a cache of keys and values. FOLDER, or --copies, may have copies beside the model:
`tuned`, from whose direction the fine-tuned copies are, and `other`, from another seed; without them weights move at
random. Answers by engines that cannot verify wait in OUTPUT.waiting for a `graphs` engine that does, by vLLM's prefill.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import engines
import torch

TABLES = ("honest", "altered", "copies", "long", "waiting")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder")
    made.add_argument("--name", help="of the model in tables (default: the folder's)")
    made.add_argument("--engine", choices=engines.ENGINES, default="graphs")
    made.add_argument("--table", choices=[*TABLES, "all"], default="all")
    made.add_argument("--output", type=Path, required=True)
    made.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="of N such calls, the one")
    made.add_argument("--copies", type=Path, help="folder of `tuned` and `other` (default: FOLDER)")
    made.add_argument("--prompts", choices=["corpus", "manual"], default="corpus", help="(default: corpus)")
    made.add_argument("--answers", type=int, default=96, help="a row")
    made.add_argument("--tokens", type=int, default=256, help="an answer")
    made.add_argument("--long", type=int, help="tokens of an answer in rows of long ones (default: none)")
    made.add_argument("--points", type=Path, help="folder for the points of some rows")
    made.add_argument("--seconds", type=float, default=400.0, help="begin no row after so long")
    made.add_argument("--kv-gb", type=float, default=4.0, help="of KV cache on a GPU")
    made.add_argument("--fast", action="store_true", help="without float16 and float32")
    made.add_argument("--only", nargs="+", help="names of rows")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return made


def main() -> None:
    args = parser().parse_args()
    began = time.monotonic()
    engine = engines.load(args.engine, args.folder, args.device, args.kv_gb)
    # In vLLM 0.32 a worker cannot start once numba is there (proxy/engines/vllm/runners/lifecycle.py).
    from kinds import altered_kinds, copied_kinds, honest_kinds, long_kinds
    from study import Study

    args.seconds -= time.monotonic() - began
    makers = {
        "honest": lambda: honest_kinds(args.engine),
        "altered": lambda: altered_kinds(args.engine, Path(args.folder)),
        "copies": lambda: copied_kinds(args.engine, args.copies or Path(args.folder), args.device),
        "long": lambda: long_kinds(args.engine) if args.long else [],
        "waiting": list,
    }
    found = [kind for name, make in makers.items() if args.table in (name, "all") for kind in make()]
    part, parts = args.part
    wanted = [kind for kind in found[part::parts] if args.only is None or kind.name in args.only]
    Study(args, engine).run(wanted)


if __name__ == "__main__":
    main()
