"""The whole study on one GPU, in so many seconds: `make evidence`.

    python benchmarks/evidence/run.py --out FOLDER [--work FOLDER] [--seconds 540]

Jobs run side by side as far as the GPU's memory and --jobs allow: two models are trained, and for each of three models
and one of Llama-3.1-8B's shape with random weights, engines of vLLM make honest and altered answers (measure.py); at
the end, with nothing else running, cost.py. What is done stays: the same call goes on where the last one ended. The
output folder gets rows.jsonl, cost.json, evidence.md, detection.png, detection.svg and log.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from questions import ROOT

COST = "cost"
HERE = Path(__file__).parent
MINI = ROOT / "models" / "toploc-mini"
COST_SECONDS = 60.0
"""Kept at the end for cost.py, which has to have the GPU to itself, once its engine is up."""
COST_START_SECONDS = 75.0
"""Before that, for its engine to start beside others."""
TABLE_SECONDS = 20.0


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


def jobs(args: argparse.Namespace, work: Path, rows: Path) -> list[Job]:
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
        command = [str(HERE / "measure.py"), str(folder), "--name", name, "--engine", engine, "--output", str(rows)]
        command += ["--kv-gb", str(kv)]
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


class Run:
    """The jobs, their times and their logs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.began = time.monotonic()
        self.work, self.out = args.work or args.out / "work", args.out
        self.work.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        self.rows = self.out / "rows.jsonl"
        self.log = (self.out / "log.txt").open("ab")
        self.quiet = self.work / "quiet"
        self.quiet.unlink(missing_ok=True)

    @property
    def left(self) -> float:
        return float(self.args.seconds) - (time.monotonic() - self.began)

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.began:6.1f} s] {text}"
        print(line, flush=True)
        self.log.write(line.encode() + b"\n")
        self.log.flush()

    def start(self, job: Job) -> None:
        command = [sys.executable, *job.command]
        if job.command[0].endswith("measure.py"):
            command += ["--seconds", str(max(5.0, self.left - COST_SECONDS - TABLE_SECONDS - 10))]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(ROOT)]))
        job.process = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.say(f"{job.name} began")

    def stop(self, job: Job, reason: str) -> None:
        """Ends the job and what it started, which is all in one session."""
        assert job.process is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(job.process.pid, number)
                job.process.wait(timeout=3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        job.over = job.stopped = True
        self.say(f"{job.name} stopped: {reason}")

    def check(self, job: Job) -> None:
        if job.running and job.process is not None and job.process.poll() is not None:
            job.over = True
            self.say(f"{job.name} ended with {job.process.returncode}")

    def loop(self, listed: list[Job]) -> None:
        """Starts what fits, in the order of the list, until all is over or the time for it is."""
        by_name = {job.name: job for job in listed}
        while not all(job.over for job in listed):
            for job in listed:
                self.check(job)
            end = COST_SECONDS + TABLE_SECONDS
            last = [job for job in listed if job.name == COST and not job.over]
            others_over = all(job.over for job in listed if job.name != COST)
            if others_over:
                self.quiet.touch()
            for job in listed:
                if job.over:
                    continue
                if job.name == COST:
                    due = TABLE_SECONDS
                elif last and not last[0].running and job.name.startswith("8b"):
                    due = end + COST_START_SECONDS  # they have the memory that it needs
                else:
                    due = end
                if self.left < due:
                    if job.running:
                        self.stop(job, "the time is up")
                    job.over = True
                    continue
                ready = all(by_name[name].over for name in job.after if name in by_name)
                busy = [other for other in listed if other.running]
                if job.name == COST and not job.running and self.left < end + COST_START_SECONDS:
                    while busy and sum(other.memory for other in busy) + job.memory > self.args.memory:
                        self.stop(busy.pop(), "its memory is needed")
                    self.start(job)
                    continue
                fits = sum(other.memory for other in busy) + job.memory <= self.args.memory
                if not job.running and ready and fits and len(busy) < self.args.jobs:
                    self.start(job)
            time.sleep(0.3)

    def cost(self) -> Job:
        shape = self.work / "llama-8b-shape"
        command = [str(HERE / "cost.py"), str(shape), "--output", str(self.out / "cost.json")]
        before = ("8b graphs", "8b fp8", "8b fp8-kv")
        return Job(COST, [*command, "--wait-for", str(self.quiet)], 44.0, before)

    def write(self) -> None:
        from tables import models_table, write

        cost = self.out / "cost.json"
        abouts = {
            "hidden size 512": self.work / "trained-512" / "about.json",
            "hidden size 1024": self.work / "trained-1024" / "about.json",
        }
        parts = [models_table(abouts), json.loads(cost.read_text())["table"] if cost.exists() else ""]
        write(self.rows, self.out, lambda: "\n".join(parts))
        self.say(f"wrote {self.out / 'evidence.md'}")
        self.log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="for models (default: OUT/work)")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything")
    parser.add_argument("--train-seconds", type=float, default=100.0, help="for each trained model and its copies")
    parser.add_argument("--memory", type=float, default=72.0, help="gigabytes of the GPU")
    parser.add_argument("--jobs", type=int, default=6, help="at once")
    args = parser.parse_args()
    run = Run(args)
    listed = [*jobs(args, run.work, run.rows), run.cost()]
    listed[-1].over = (run.out / "cost.json").exists()
    try:
        run.loop(listed)
    finally:
        for job in listed:
            if job.running:
                run.stop(job, "the run ends")
        run.write()


if __name__ == "__main__":
    main()
