"""What the recorder costs by batch and hidden size, without a model: the GPU's ring alone.

    python benchmarks/serving/recorder.py [--hidden 4096 8192] [--batches 1 64 256 1024]      (on a GPU)

Microseconds: `write` of a decoding step's rows and a whole `record` on the engine's thread (median; mean and 99th
percentile with all that chunks need there); the GPU's own time a step in our kernels, by torch's profiler; from asking
for a reduction of n chunks to their features. MiB of the ring.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from toploc_proxy.capture.device_ring import DeviceRing
from toploc_proxy.capture.recorder import Recorder
from toploc_proxy.capture.ring import ChunkRefs, Rows
from toploc_proxy.capture.sizes import device_slots, ring_rows
from toploc_proxy.capture.step import Step
from toploc_proxy.channel.tag import EXTRA_ARG, Tag

from toploc.scheme import CHUNK_SIZE, TOPK

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "benchmark"
KERNELS = "write_rows", "reduce_chunks"
PROMPT, STEPS, WARM_UP = 128, 400, 100
PROFILED = 64
"""Steps whose kernels are timed, after the others: as many as complete two chunks of each request."""


def timed(work: Callable[[], object], rounds: int) -> float:
    for _ in range(20):
        work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    return (time.perf_counter() - began) / rounds * 1e6


def measure(hidden: int, batch: int) -> str:
    device = torch.device("cuda")
    ring = DeviceRing(device_slots(batch), ring_rows(0), hidden, torch.bfloat16, TOPK, device)
    recorder = Recorder(ring, SECRET)
    ids = [f"cmpl-{i}" for i in range(batch)]
    for request_id in ids:
        recorder.register(request_id, {EXTRA_ARG: Tag.new().seal(SECRET)}, PROMPT)
    # Answers are at all places of a chunk, as in traffic.
    first = np.arange(batch, dtype=np.int32) % CHUNK_SIZE + PROMPT - 1
    starts = np.arange(batch + 1, dtype=np.int32)
    states = torch.randn(batch, hidden, device=device).bfloat16()
    inputs = torch.zeros(batch, dtype=torch.int32, device=device)
    positions = [torch.from_numpy(first.astype(np.int64) + n).to(device) for n in range(STEPS + PROFILED)]
    record = []

    def advance(n: int) -> None:
        step = Step(ids, first + n, starts, states, positions[n], inputs)
        began = time.perf_counter()
        recorder.record(step)
        record.append((time.perf_counter() - began) * 1e6)
        if n % 8 == 0:
            recorder.encode()

    for n in range(STEPS):
        advance(n)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for n in range(STEPS, STEPS + PROFILED):
            advance(n)
        torch.cuda.synchronize()
    spent = {event.key: event.self_device_time_total / PROFILED for event in profile.key_averages()}
    write_gpu, reduce_gpu = (sum(t for key, t in spent.items() if name in key) for name in KERNELS)
    numbers = np.arange(batch)
    rows, step = Rows(numbers, numbers, numbers * 0 + 1), Step(ids, first, starts, states, positions[0], inputs)
    write = timed(lambda: ring.write(step, rows), 200)
    reductions = []
    for count in (1, 8, 64, 256):
        if count <= batch:
            some = np.arange(count)
            refs = ChunkRefs(some, some * 0 + 1, some * 0 + PROMPT - 1, some * 0 + CHUNK_SIZE)
            reductions.append(f"{timed(lambda refs=refs: ring.reduce(refs, complete=True).features(), 100):.0f}")
        else:
            reductions.append("")
    kept = record[WARM_UP:STEPS]
    spread = f"{statistics.median(kept):.0f} | {statistics.mean(kept):.0f} | {np.percentile(kept, 99):.0f}"
    spread += f" | {write_gpu:.1f} | {reduce_gpu:.1f}"
    figures = f"{write:.0f} | {spread} | {' | '.join(reductions)}"
    return f"| {hidden} | {batch} | {ring.num_bytes / 2**20:.0f} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256, 1024])
    options = parser.parse_args()
    heads = ["hidden", "batch", "ring, MiB", "write", "record, median", "mean", "99 %", "GPU, write", "GPU, reduce"]
    heads += ["1 chunk", "8", "64", "256"]
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    with torch.inference_mode():
        for hidden in options.hidden:
            for batch in options.batches:
                print(measure(hidden, batch), flush=True)


if __name__ == "__main__":
    main()
