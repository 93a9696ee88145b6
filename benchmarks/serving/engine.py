"""What recording costs the engine alone: decoding steps with and without it, in one process without HTTP.

    python benchmarks/serving/engine.py FOLDER [--batches 1 64 256] [--output FILE]      (on a GPU)

FOLDER is of `shape.py`. Batches are decoded in turn without (plain) and with a recorder (proofs), A B B A …, on one
engine. Figures are milliseconds a step over the steps in which the whole batch decodes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

# The recorder is reached from here, so the engine has to run in this process.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_PLUGINS": "toploc"}

from toploc_proxy.channel.tag import EXTRA_ARG, Key, Tag
from toploc_proxy.settings import Settings

PROMPT_TOKENS = 128


class Engine:
    """vLLM's engine core and the recorder in its worker."""

    def __init__(self, model: str, max_num_seqs: int) -> None:
        from vllm import LLM

        self.settings = Settings(channel=tempfile.mkdtemp(dir="/tmp"))
        self.settings.to_environ()
        self.llm = LLM(
            model, load_format="dummy", gpu_memory_utilization=0.8, max_model_len=2048, max_num_seqs=max_num_seqs
        ).llm_engine
        self.core = self.llm.engine_core.engine_core
        self.runner = self.core.model_executor.driver_worker.worker.model_runner
        self.worker = self.runner.toploc_worker
        self.requests = 0

    def decode(self, batch: int, tokens: int, *, proofs: bool) -> dict[str, float]:
        """Milliseconds of the steps that decode the whole batch, and of finalizing it."""
        from vllm import SamplingParams

        self.runner.toploc_worker = self.worker if proofs else None
        prompts, tags = {}, {}
        for _ in range(batch):
            self.requests += 1
            params = SamplingParams(max_tokens=tokens, ignore_eos=True, detokenize=False)
            tag = Tag.new()
            params.extra_args = {EXTRA_ARG: tag.seal(self.settings.secret)} if proofs else None
            prompt = [random.randrange(10, 500) for _ in range(PROMPT_TOKENS)]
            request_id = self.llm.add_request(str(self.requests), {"prompt_token_ids": prompt}, params)
            prompts[request_id], tags[request_id] = prompt, tag
        generated: dict[str, list[int]] = {request_id: [] for request_id in prompts}
        steps, last, ended = [], time.perf_counter(), 0
        while ended < batch:
            outputs, executed = self.core.step_fn()
            self.core.post_step(model_executed=executed)
            if not outputs:
                continue
            now = time.perf_counter()
            for output in outputs[0].outputs:
                generated[output.request_id] += output.new_token_ids
                ended += output.finish_reason is not None
            if len(outputs[0].outputs) == batch:
                steps.append((now - last) * 1e3)
            last = now
        self.llm.output_processor.request_states.clear()
        result = {"mean": statistics.mean(steps[3:]), "p99": sorted(steps[3:])[int(0.99 * len(steps[3:]))]}
        if proofs:
            recorder = self.worker._recorder
            wanted = [(Key(tags[r].nonce, 0), [prompts[r][-1], *ids[:-1]]) for r, ids in generated.items()]
            began = time.perf_counter()
            outcomes = recorder.finalize_all(wanted)
            result["finalize"] = (time.perf_counter() - began) * 1e3
            assert not any(isinstance(outcome, Exception) for outcome in outcomes), outcomes
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--tokens", type=int, default=130)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--output", type=Path, help="every run's figures as JSON")
    options = parser.parse_args()
    engine = Engine(options.model, max(options.batches))
    ring = engine.runner.toploc_ring.num_bytes / 2**20
    results: list[dict[str, Any]] = []
    lines = [
        "| batch | plain, ms | proofs, ms | ratio, median | smallest | largest | finalize all, ms |",
        "|" + "---|" * 7,
    ]
    for batch in options.batches:
        engine.decode(batch, 40, proofs=True)
        pairs = []
        for pair in range(options.pairs):
            order = (False, True) if pair % 2 == 0 else (True, False)
            runs = {proofs: engine.decode(batch, options.tokens, proofs=proofs) for proofs in order}
            pairs.append((runs[False], runs[True]))
            results.append({"batch": batch, "plain": runs[False], "proofs": runs[True]})
        ratios = [proofs["mean"] / plain["mean"] for plain, proofs in pairs]
        plain, proofs, finalize = (
            statistics.median(column)
            for column in zip(*((a["mean"], b["mean"], b["finalize"]) for a, b in pairs), strict=True)
        )
        lines.append(
            f"| {batch} | {plain:.3f} | {proofs:.3f} | **{statistics.median(ratios):.4f}** | {min(ratios):.4f} "
            f"| {max(ratios):.4f} | {finalize:.2f} |"
        )
        print("\n".join(lines), f"\nring {ring:.0f} MiB", flush=True)
        if options.output:
            options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
