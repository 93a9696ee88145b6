"""The engines of the tests on GPUs: one entry a kind that operators run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MODEL: Final = "MODEL"
"""In flags: the model's folder."""

ADAPTER: Final = "ADAPTER"
"""In flags: the adapter's folder."""


DRAFTER: Final = "DRAFTER"
"""In flags: the folder of an EAGLE-3 head with random weights."""


@dataclass(frozen=True)
class Engine:
    """How a server is started, and what is then known of it.

    Args:
        runner: the model runner that these flags ask for; None where it depends on vLLM's version.
        gpus: how many it takes.
        exact: whether it has the weights and the memory of a prefill in 16 bits.
    """

    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    runner: str | None = None
    gpus: int = 1
    exact: bool = True


V1: Final = {"VLLM_USE_V2_MODEL_RUNNER": "0"}

ONE_GPU: Final = {
    "v2 graphs, async": Engine(runner="v2"),
    "v2 eager, sync, chunked": Engine(
        ("--enforce-eager", "--no-async-scheduling", "--max-num-batched-tokens", "128", "--max-num-seqs", "64"),
        runner="v2",
    ),
    "v2 preemption": Engine(("--num-gpu-blocks-override", "120", "--enforce-eager"), runner="v2"),
    "v1 graphs, async": Engine(environment=V1, runner="v1"),
    "draft model": Engine(
        ("--speculative-config", f'{{"method": "draft_model", "model": "{MODEL}", "num_speculative_tokens": 3}}'),
    ),
    "n-gram": Engine(
        ("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}'),
    ),
    "EAGLE-3": Engine(
        ("--speculative-config", f'{{"method": "eagle3", "model": "{DRAFTER}", "num_speculative_tokens": 3}}'),
        runner="v2",
    ),
    "LoRA": Engine(("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"adapted={ADAPTER}")),
    "fp8 weights": Engine(("--quantization", "fp8"), exact=False),
    "fp8 KV cache": Engine(("--kv-cache-dtype", "fp8"), exact=False),
}

RAY: Final = (
    "--distributed-executor-backend",
    "ray",
    "--toploc-channel",
    "CHANNEL",
    "--toploc-channel-secret",
    "SECRET",
)
TWO_GPUS: Final = {
    "tensor parallel": Engine(("--tensor-parallel-size", "2", "--toploc-copy-head"), gpus=2),
    "pipeline parallel": Engine(("--pipeline-parallel-size", "2"), gpus=2),
    "data parallel": Engine(("--data-parallel-size", "2"), gpus=2),
    "Ray": Engine(("--tensor-parallel-size", "2", "--toploc-copy-head", *RAY), gpus=2),
}

ENGINES: Final = ONE_GPU | TWO_GPUS
