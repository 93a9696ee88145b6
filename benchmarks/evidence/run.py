"""The whole study on one GPU, in so many seconds: `make evidence`.

    python benchmarks/evidence/run.py --out FOLDER [--work FOLDER] [--seconds 540] [--models FOLDER ...]

Jobs run side by side as far as the GPU's memory and --jobs allow (jobs.py). With --models, folders of trained models
(`python -m models fetch`), engines of vLLM make honest and altered answers of each: in rows (measure.py; of the first
model also the points of some), as evidence for a calibration (honest.py), and as text (benchmarks/tokens/trained.py).
Without, two models are trained, and there are rows of these, of the bundled model and of one of Llama-3.1-8B's shape
with random weights; at the end, with nothing else running, cost.py. What is done stays: the same call goes on where the
last one ended. The output folder gets rows.jsonl and log.txt, with --models also points, evidence and tokens, without
cost.json and what tables.py makes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs import COST, Job, cost, real_model, small_models
from questions import ROOT

COST_SECONDS = 60.0
"""Kept at the end for cost.py, which has to have the GPU to itself, once its engine is up."""
COST_START_SECONDS = 75.0
"""Before that, for its engine to start beside others."""
TABLE_SECONDS = 20.0


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

    @property
    def end(self) -> float:
        """Seconds that are kept for what comes last."""
        return 0.0 if self.args.models else COST_SECONDS + TABLE_SECONDS

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.began:6.1f} s] {text}"
        print(line, flush=True)
        self.log.write(line.encode() + b"\n")
        self.log.flush()

    def start(self, job: Job) -> None:
        command = [sys.executable, *job.command]
        if Path(job.command[0]).name in ("measure.py", "honest.py", "trained.py"):
            command[2:2] = ["--seconds", str(max(5.0, self.left - self.end - 10))]
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
        for number, seconds in ((signal.SIGTERM, 1), (signal.SIGKILL, 3)):
            try:
                os.killpg(job.process.pid, number)
                job.process.wait(timeout=seconds)
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
                    due = self.end + COST_START_SECONDS  # they have the memory that it needs
                else:
                    due = self.end
                if self.left < due:
                    if job.running:
                        self.stop(job, "the time is up")
                    job.over = True
                    continue
                ready = all(by_name[name].over for name in job.after if name in by_name)
                busy = [other for other in listed if other.running]
                if job.name == COST and not job.running and self.left < self.end + COST_START_SECONDS:
                    while busy and sum(other.memory for other in busy) + job.memory > self.args.memory:
                        self.stop(busy.pop(), "its memory is needed")
                    self.start(job)
                    continue
                fits = sum(other.memory for other in busy) + job.memory <= self.args.memory
                if not job.running and ready and fits and len(busy) < self.args.jobs:
                    self.start(job)
            time.sleep(0.3)

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
    parser.add_argument(
        "--models", type=Path, nargs="+", default=[], help="folders of trained models, first comes first"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of answers and tokens of these")
    parser.add_argument("--memory", type=float, default=72.0, help="gigabytes of the GPU")
    parser.add_argument("--jobs", type=int, default=6, help="at once")
    args = parser.parse_args()
    run = Run(args)
    listed: list[Job] = []
    for place, folder in enumerate(args.models):
        other = args.models[place - 1] if len(args.models) > 1 else None
        listed += real_model(folder, run.work, run.out, other, scale=args.scale, points=place == 0)
    if not args.models:
        listed = [*small_models(args, run.work, run.out), cost(run.work, run.out, run.quiet)]
        listed[-1].over = (run.out / "cost.json").exists()
    try:
        run.loop(listed)
    finally:
        for job in listed:
            if job.running:
                run.stop(job, "the run ends")
        if not args.models:
            run.write()


if __name__ == "__main__":
    main()
