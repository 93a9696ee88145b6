"""Proofs of SGLang on a GPU: states that a graph's replay leaves are those of this step, and of this row.

`benchmarks/engines/gpu.sh` runs them where SGLang's kit is. A row with the right token and another step's values would
pass the self-check, so each chunk is held against a prefill.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import torch
from toploc_proxy.local_server import LocalServer

from toploc.proofs.verdict import verify_activations
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang is not installed"),
]

# The kit has no FlashAttention and no FlashInfer.
SERVE: Final = ("--attention-backend", "triton", "--sampling-backend", "pytorch", "--context-length", "4096")
ENGINES: Final = {
    "decode graphs": ("--cuda-graph-backend-prefill", "disabled"),
    "all graphs": ("--cuda-graph-max-bs-prefill", "1024"),
    "eager, chunks": ("--disable-cuda-graph", "--chunked-prefill-size", "128", "--enable-mixed-chunk"),
    "no overlap": ("--cuda-graph-backend-prefill", "disabled", "--disable-overlap-schedule"),
}

BATCHES: Final = (1, 3, 300)
"""Answers at once: a graph's own size, one that is padded, and more than the largest graph has."""

ALIGNED: Final = 64
"""Mismatches of 128 that no chunk of a shifted row stays below."""


@pytest.fixture(scope="module")
def prefill(wide_model: Path) -> TransformersPrefill:
    return TransformersPrefill(wide_model, device="cuda")


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest, wide_model: Path) -> Iterator[LocalServer]:
    flags = ["--model-path", str(wide_model), "--served-model-name", "wide", "--mem-fraction-static", "0.4"]
    captures = ["--toploc-captures", "512", "--toploc-thresholds", "paper-bfloat16"]
    command = [sys.executable, "-m", "toploc", "sglang"]
    with LocalServer([*flags, *SERVE, *ENGINES[request.param], *captures], command=command, start_timeout=600) as local:
        yield local


def body_of(seed: int) -> dict[str, Any]:
    """One completion after a random prompt; prompts of one token, and of more than a chunk, are among them."""
    generator = random.Random(seed)
    return {
        "model": "wide",
        "prompt": [generator.randrange(10, 500) for _ in range(generator.choice([1, 5, 40, 200, 900]))],
        "max_tokens": generator.choice([1, 31, 32, 33, 64, 70, 119]),
        "temperature": seed % 2,
        "ignore_eos": True,
        "toploc": {"prompt_token_ids": True},
    }


def ask(server: LocalServer, path: str, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All at once."""
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=server.url, timeout=600, limits=limits) as http, ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: http.post(path, json=body).raise_for_status().json(), bodies))


@pytest.mark.parametrize("count", BATCHES)
def test_every_chunk_verifies(server: LocalServer, prefill: TransformersPrefill, count: int) -> None:
    figures = []
    for answer in ask(server, "/v1/completions", [body_of(seed) for seed in range(count)]):
        proofs = answer["toploc_proofs"]
        [choice] = proofs["choices"]
        assert "error" not in choice, choice
        states = prefill.hidden_states(proofs["prompt"]["token_ids"], choice["token_ids"])
        verdict = verify_activations(choice["proofs"], states)
        assert verdict.passed, verdict
        figures += [(chunk.mismatches, chunk.mantissa_mean) for chunk in verdict.chunks]
        # A greedy answer may repeat one token, and its states with it.
        if len(set(choice["token_ids"])) > 20:
            shifted = verify_activations(choice["proofs"], torch.roll(states, 1, dims=0))
            assert all(chunk.mismatches > ALIGNED for chunk in shifted.chunks[:-1])
    most = [max(column) for column in zip(*figures, strict=True)]
    print(f"{count} at once: {len(figures)} chunks, at most {most[0]} mismatches, mantissa mean {most[1]:.2f}")


def test_the_server_verifies_its_answers(server: LocalServer) -> None:
    bodies = [body_of(seed) for seed in range(48)]
    evidence = [
        {"request": body, "response": answer}
        for body, answer in zip(bodies, ask(server, "/v1/completions", bodies), strict=True)
    ]
    reports = ask(server, "/v1/toploc/verify", evidence)
    assert {report["verdict"] for report in reports} == {"accepted"}, reports
    for one in evidence:
        one["response"]["toploc_proofs"]["choices"][0]["proofs"].reverse()
    several = [one for one in evidence[1::2] if len(one["response"]["toploc_proofs"]["choices"][0]["proofs"]) > 1]
    assert {report["verdict"] for report in ask(server, "/v1/toploc/verify", several)} == {"rejected"}


def test_the_engine_says_how_it_computes(server: LocalServer, request: pytest.FixtureRequest) -> None:
    said = httpx.get(f"{server.url}/v1/toploc").json()["engine"]
    is_eager = "eager" in request.node.callspec.params["server"]
    assert said.get("execution") == ("eager" if is_eager else "CUDA graphs"), said
