"""Has a model and altered copies of it answer, and measures how far their proofs are from honest states.

    python benchmarks/evidence/measure.py FOLDER --engine graphs --output rows.jsonl [--seconds 200]

Every row goes to the file when it is done, and rows that are there are left out, so that a run goes on where one ended.
Engines: `graphs`, `eager` (and prefill in chunks of 128 tokens), `fp8` (weights), `fp8-kv` (KV cache) are vLLM's,
`transformers` is a prover by a cache of keys and values. FOLDER may have copies beside the model: `tuned`, from whose
direction the fine-tuned copies are, and `other`, from another seed; without them weights move at random.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch


def prover(args: argparse.Namespace) -> Any:
    if args.engine == "transformers":
        from transformers_engine import TransformersEngine

        return TransformersEngine.load(args.folder, args.device)
    from vllm_engine import VllmEngine

    options: dict[str, Any] = {"enforce_eager": args.engine != "graphs", "max_model_len": 1792}
    if args.device == "cuda":
        # Sized by hand: vLLM's own measurement fails where other processes take and give back memory meanwhile.
        options |= {"gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": int(args.kv_gb * 2**30)}
    if args.engine == "graphs":
        options["compilation_config"] = {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 96, 128, 256]}
    if args.engine == "eager":
        options |= {"max_num_batched_tokens": 128, "max_num_seqs": 64}
    if args.engine == "fp8":
        options["quantization"] = "fp8"
    if args.engine == "fp8-kv":
        options["kv_cache_dtype"] = "fp8"
    return VllmEngine(args.folder, **options)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder")
    made.add_argument("--name", help="of the model in tables (default: the folder's)")
    made.add_argument("--engine", choices=["graphs", "eager", "fp8", "fp8-kv", "transformers"], default="graphs")
    made.add_argument("--table", choices=["honest", "altered", "all"], default="all")
    made.add_argument("--output", type=Path, required=True)
    made.add_argument("--answers", type=int, default=96, help="a row")
    made.add_argument("--tokens", type=int, default=256, help="an answer")
    made.add_argument("--seconds", type=float, default=400.0, help="begin no row after so long")
    made.add_argument("--kv-gb", type=float, default=4.0, help="of KV cache on a GPU")
    made.add_argument("--fast", action="store_true", help="without float16 and float32")
    made.add_argument("--only", nargs="+", help="names of rows")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return made


def main() -> None:
    args = parser().parse_args()
    began = time.monotonic()
    engine = prover(args)
    # In vLLM 0.32 a worker cannot start once numba is there (proxy/engines/vllm/runners/lifecycle.py).
    from study import Study, altered_kinds, honest_kinds

    args.seconds -= time.monotonic() - began
    kinds = honest_kinds(args.engine) if args.table != "altered" else []
    if args.table != "honest":
        kinds += altered_kinds(args.engine, Path(args.folder), args.device)
    Study(args, engine).run([kind for kind in kinds if args.only is None or kind.name in args.only])


if __name__ == "__main__":
    main()
