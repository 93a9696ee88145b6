"""Proofs of real vLLM engines on a GPU, verified by a transformers prefill of the same weights."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import torch
from toploc_proxy.local_server import LocalServer

from toploc.proofs.verdict import verify_activations
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.gpu

# Name: arguments, environment, model runner that vLLM 0.26 chooses.
ENGINES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "v2 graphs, async": ([], {}, "v2"),
    "v2 eager, sync, chunked": (
        ["--enforce-eager", "--no-async-scheduling", "--max-num-batched-tokens", "128", "--max-num-seqs", "64"],
        {},
        "v2",
    ),
    "v2 preemption": (["--num-gpu-blocks-override", "120", "--enforce-eager"], {}, "v2"),
    "v1 draft model": (
        ["--speculative-config", '{"method": "draft_model", "model": "MODEL", "num_speculative_tokens": 3}'],
        {},
        "v1",
    ),
    "v1 graphs, async": ([], {"VLLM_USE_V2_MODEL_RUNNER": "0"}, "v1"),
    "v1 ngram": (
        ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}'],
        {},
        "v1",
    ),
}


# Other weights, or another memory, than the prefill's: of 128 exponents so many differ at most. A shifted row, or
# another answer's, leaves hardly any equal.
QUANTIZED: dict[str, tuple[list[str], dict[str, str], str]] = {
    "v2 fp8 weights": (["--quantization", "fp8"], {}, "v2"),
    "v2 fp8 KV cache": (["--kv-cache-dtype", "fp8"], {}, "v2"),
}
ALIGNED = 64


@pytest.fixture(scope="module")
def prefill(wide_model: Path) -> TransformersPrefill:
    return TransformersPrefill(wide_model, device="cuda")


@pytest.fixture(scope="module", params=[*ENGINES, *QUANTIZED])
def server(request: pytest.FixtureRequest, wide_model: Path) -> Iterator[tuple[LocalServer, str]]:
    arguments, environment, runner = (ENGINES | QUANTIZED)[request.param]
    arguments = [argument.replace("MODEL", str(wide_model)) for argument in arguments]
    common = [str(wide_model), "--served-model-name", "wide", "--max-model-len", "1024"]
    common += ["--gpu-memory-utilization", "0.3"]
    with LocalServer([*common, *arguments], environment=environment) as local:
        yield local, runner


def ask(client: openai.OpenAI, seed: int) -> Any:
    """One completion of random length after a random prompt; every fourth ends early, streams, or has two choices."""
    generator = random.Random(seed)
    prompt = [generator.randrange(10, 500) for _ in range(generator.randrange(5, 200))]
    return client.completions.create(
        model="wide",
        prompt=prompt,
        max_tokens=generator.choice([1, 31, 32, 33, 64, 70, 96, 119, 200]),
        temperature=seed % 2,
        n=2 if seed % 4 == 1 else 1,
        extra_body={"ignore_eos": seed % 3 > 0, "toploc": {"prompt_token_ids": True}},
    )


def test_every_chunk_verifies(
    server: tuple[LocalServer, str], prefill: TransformersPrefill, request: pytest.FixtureRequest
) -> None:
    local, runner = server
    client = openai.OpenAI(base_url=f"{local.url}/v1", api_key="none", max_retries=0)
    assert client.get("/toploc", cast_to=dict[str, Any])["engine"]["model_runner"] == runner
    with ThreadPoolExecutor(24) as pool:
        responses = list(pool.map(lambda seed: ask(client, seed), range(48)))
    if "preemption" in request.node.callspec.id:
        metrics = httpx.get(f"{local.url}/metrics").text
        assert float(re.findall(r"^vllm:num_preemptions_total.* (\S+)$", metrics, re.MULTILINE)[0]) > 0
    quantized = request.node.callspec.params["server"] in QUANTIZED
    figures = []
    for seed, response in enumerate(responses):
        proofs = response.toploc_proofs
        assert "error" not in proofs, proofs
        for choice, text in zip(proofs["choices"], response.choices, strict=True):
            assert "error" not in choice, choice
            states = prefill.hidden_states(proofs["prompt"]["token_ids"], choice["token_ids"])
            verdict = verify_activations(choice["proofs"], states)
            misplaced = [chunk for chunk in verdict.chunks if chunk.mismatches > ALIGNED]
            assert not misplaced if quantized else verdict.passed, (choice["index"], text.finish_reason, verdict)
            figures += [(c.mismatches, c.mantissa_mean, c.mantissa_median) for c in verdict.chunks]
            # A greedy answer may repeat one token, and its states with it.
            if seed % 2 and len(choice["token_ids"]) >= 31:
                shifted = verify_activations(choice["proofs"], torch.roll(states, 1, dims=0))
                assert not shifted.passed
                assert all(chunk.mismatches > ALIGNED for chunk in shifted.chunks)
    worst = [max(column) for column in zip(*figures, strict=True)]
    print(f"{len(figures)} chunks, worst mismatches {worst[0]}, mantissa mean {worst[1]:.2f}, median {worst[2]}")
