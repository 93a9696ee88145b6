"""What a study runs: scripts with their arguments, in the order of what matters most."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from questions import ROOT

if TYPE_CHECKING:
    import argparse
    import subprocess

HERE = Path(__file__).parent
MINI = ROOT / "models" / "toploc-mini"
COST = "cost"
KV_GB = 4.0
"""Of an engine of a model of a few hundred million parameters."""


@dataclass(slots=True)
class Job:
    """A script with its arguments, the gigabytes of the GPU it takes, and the jobs that have to be over before."""

    name: str
    command: list[str]
    memory: float
    after: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    over: bool = False
    stopped: bool = field(default=False)

    @property
    def running(self) -> bool:
        return self.process is not None and not self.over


def small_models(args: argparse.Namespace, work: Path, out: Path) -> list[Job]:
    """Models that are trained here for minutes, the bundled one, and one of a large one's shape."""
    small, large, shape = work / "trained-512", work / "trained-1024", work / "llama-8b-shape"
    names = {
        "mini": (MINI, "toploc-mini, hidden size 256", 4.0, 1.0),
        "small": (small, "trained here, hidden size 512", 6.0, 2.0),
        "large": (large, "trained here, hidden size 1024", 10.0, 4.0),
        "8b": (shape, "Llama-3.1-8B's shape, random weights", 36.0, 10.0),
    }
    before = {"mini": (), "small": ("train small",), "large": ("train large",), "8b": ("shape",)}

    def measure(key: str, engine: str) -> Job:
        folder, name, memory, kv = names[key]
        command = [str(HERE / "measure.py"), str(folder), "--name", name, "--engine", engine]
        command += ["--output", str(out / "rows.jsonl"), "--kv-gb", str(kv)]
        if key == "8b":
            command += ["--fast", "--answers", "64", "--tokens", "128"]
        return Job(f"{key} {engine}", command, memory + kv + (2.0 if engine == "graphs" else 0.0), before[key])

    seconds = str(args.train_seconds)
    train = str(HERE / "train.py")
    return [
        Job("train small", [train, str(small), "--hidden", "512", "--layers", "8", "--seconds", seconds], 6.0),
        Job("train large", [train, str(large), "--hidden", "1024", "--layers", "12", "--seconds", seconds], 14.0),
        Job("shape", [str(HERE / "shape.py"), str(shape)], 18.0),
        measure("mini", "graphs"),
        measure("mini", "fp8"),
        measure("mini", "fp8-kv"),
        measure("small", "graphs"),
        measure("large", "graphs"),
        measure("8b", "graphs"),
        measure("small", "fp8"),
        measure("small", "fp8-kv"),
        measure("large", "fp8"),
        measure("large", "fp8-kv"),
        measure("8b", "fp8"),
        measure("8b", "fp8-kv"),
        measure("small", "eager"),
        measure("large", "eager"),
        measure("mini", "eager"),
    ]


def cost(work: Path, out: Path, quiet: Path) -> Job:
    """Times, with nothing else running."""
    shape = work / "llama-8b-shape"
    command = [str(HERE / "cost.py"), str(shape), "--output", str(out / "cost.json")]
    return Job(COST, [*command, "--wait-for", str(quiet)], 44.0, ("8b graphs", "8b fp8", "8b fp8-kv"))


def real_model(
    folder: Path, work: Path, out: Path, other: Path | None, *, scale: float = 1.0, points: bool = False
) -> list[Job]:
    """Of a trained model that engines serve: rows, answers for a calibration, and texts.

    `other`: another such model, whose text is held against this one's. `scale`: of the numbers of answers and tokens.
    `points`: whether those of some rows are kept.
    """
    name = folder.name
    copies, evidence = work / name, out / "evidence"
    sizes = ["--answers", str(max(8, round(256 * scale))), "--tokens", str(max(64, round(512 * scale)))]
    rows = ["--output", str(out / "rows.jsonl"), "--kv-gb", str(KV_GB)]
    rows += ["--points", str(out / "points")] if points else []

    def measure(label: str, engine: str, *more: str, after: tuple[str, ...] = ()) -> Job:
        command = [str(HERE / "measure.py"), str(folder), "--engine", engine, "--prompts", "manual", *sizes, *rows]
        return Job(f"{name} {label}", [*command, *more], 5.0 + KV_GB, after)

    def honest(label: str, count: int, tokens: int, *more: str, options: tuple[str, ...] = ()) -> Job:
        file = evidence / f"{name}-{'honest' if not more or more[0] != '--weights' else label}.jsonl"
        command = [str(HERE / "honest.py"), str(folder), "--name", name, "--output", str(file), *more]
        command += ["--answers", str(round(count * scale)), "--tokens", str(max(64, round(tokens * scale)))]
        engine = ["--max-model-len", "3072", "--gpu-memory-utilization", "0.05", "--seed", "1", *options]
        engine += ["--kv-cache-memory-bytes", str(int(KV_GB * 2**30))]
        return Job(f"{name} answers {label}", [*command, "--", *engine], 2.0 + KV_GB)

    def prefills(label: str, after: tuple[str, ...]) -> Job:
        """By a verifier on this machine."""
        command = [str(HERE / "prefills.py"), str(evidence / f"{name}-{label}.jsonl"), "--model", str(folder)]
        command += ["--name", name, "--device", "cuda", "--kept", str(copies / f"{label}.kept")]
        return Job(f"{name} prefills {label}", command, 3.0, after)

    kinds = ("int8", "fp8", "int4")
    bounds = [str(HERE / "thresholds.py"), "--model", name, "--kept", str(copies / "honest.kept")]
    bounds += ["--altered", *(f"{kind}={copies / f'{kind}.kept'}" for kind in kinds)]
    bounds += ["--hidden-size", str(json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"])]
    bounds += ["--said", "answers of this study", "--pooled-said", "answers of this study"]
    bounds += ["--out", str(evidence / f"{name}.yaml")]
    eager = ("--enforce-eager", "--max-num-batched-tokens", "128", "--max-num-seqs", "64")
    long = ("--long", str(max(96, round(2048 * scale))))
    tuned = f"{name} tune"
    rest = [
        measure("window", "window"),
        measure("rope", "rope"),
        measure("int8 KV cache", "int8-kv"),
        measure("Triton", "triton"),
        measure("fp8 KV cache", "fp8-kv", *long),
        measure("fp8", "fp8"),
    ]
    scored = [str(HERE.parent / "tokens" / "trained.py"), str(folder), str(out / "tokens" / name)]
    scored += ["--copies", str(copies), "--answers", str(max(4, round(64 * scale)))]
    return [
        Job(tuned, [str(HERE / "tune.py"), str(folder), str(copies / "tuned")], 30.0),
        measure("altered 0", "graphs", "--table", "altered", "--part", "0", "2"),
        measure("altered 1", "graphs", "--table", "altered", "--part", "1", "2"),
        measure("honest", "graphs", "--table", "honest"),
        honest("graphs", 600, 2048),
        *rest[4:],
        measure("eager", "eager"),
        honest("eager", 600, 2048, "--first", "600", options=eager),
        Job(f"{name} tokens", [*scored, *(["--other", str(other)] if other else [])], 16.0, (tuned,)),
        measure("copies", "graphs", "--table", "copies", "--copies", str(copies), after=(tuned,)),
        measure("long", "graphs", "--table", "long", *long),
        *rest[:4],
        measure("transformers", "transformers", "--table", "honest"),
        measure("others by vLLM", "graphs", "--table", "waiting", after=tuple(job.name for job in rest)),
        *(honest(kind, 128, 256, "--weights", kind) for kind in kinds),
        prefills("honest", (f"{name} answers graphs", f"{name} answers eager")),
        *(prefills(kind, (f"{name} answers {kind}",)) for kind in kinds),
        Job(f"{name} thresholds", bounds, 0.0, tuple(f"{name} prefills {label}" for label in ("honest", *kinds))),
    ]
