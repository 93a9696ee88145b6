"""Proofs of SGLang on a GPU: states that a graph's replay leaves are those of this step, and of this row.

`benchmarks/engines/gpu.sh` runs them where SGLang's kit is, each engine in a process of its own. A row with the right
token and another step's values would pass the self-check, so each chunk is held against a prefill.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import torch
from toploc_proxy.local_server import LocalServer

from toploc.proofs.verdict import verify_activations
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang is not installed"),
]

LOGS: Final = Path(os.environ.get("SGLANG_TEST_LOGS", "/tmp"))
"""Where servers' logs go."""

# The kit has no FlashAttention and no FlashInfer. A cache of one size, since several engines start at once.
SERVE: Final = (
    *("--attention-backend", "triton", "--sampling-backend", "pytorch", "--context-length", "4096"),
    *("--mem-fraction-static", "0.5", "--max-total-tokens", "65536", "--decode-log-interval", "5"),
    *("--toploc-captures", "512", "--toploc-thresholds", "paper-bfloat16"),
)
DECODE: Final = ("--cuda-graph-backend-prefill", "disabled")
"""Graphs of decoding steps alone: those of prefills take long to capture."""


@dataclass(frozen=True)
class Engine:
    """How it is started, and what its proofs are held to.

    Args:
        exact: it has the weights and the memory of a prefill in 16 bits. Of another, a chunk has to be aligned.
        own: the same, of its own prefill. SGLang's reads new rows before they are rounded for the cache.
        says: facts of itself.
    """

    flags: tuple[str, ...]
    exact: bool = True
    own: bool = True
    says: tuple[tuple[str, str], ...] = (("execution", "CUDA graphs"),)


ENGINES: Final = {
    "decode-graphs": Engine(DECODE),
    "all-graphs": Engine(("--cuda-graph-max-bs-prefill", "1024")),
    "eager-chunks": Engine(
        ("--disable-cuda-graph", "--chunked-prefill-size", "128", "--enable-mixed-chunk"),
        says=(("execution", "eager"),),
    ),
    # Steps of more than eight answers run without a graph, between others that have one.
    "few-graphs-no-overlap": Engine((*DECODE, "--disable-overlap-schedule", "--cuda-graph-max-bs-decode", "8")),
    "fp8-weights": Engine((*DECODE, "--quantization", "fp8"), exact=False, says=(("quantization", "fp8"),)),
    "e4m3-cache": Engine(
        (*DECODE, "--kv-cache-dtype", "fp8_e4m3"), exact=False, own=False, says=(("kv_cache", "float8_e4m3fn"),)
    ),
    "e5m2-cache": Engine(
        (*DECODE, "--kv-cache-dtype", "fp8_e5m2"), exact=False, own=False, says=(("kv_cache", "float8_e5m2"),)
    ),
}

BATCHES: Final = (1, 3, 100)
"""Answers at once: a graph's own size, and two that are padded."""

ALIGNED: Final = 64
"""Mismatches of 128 that no chunk of a shifted row stays below."""


@pytest.fixture(scope="module")
def prefill(wide_model: Path) -> TransformersPrefill:
    return TransformersPrefill(wide_model, device="cuda")


@pytest.fixture(scope="module", params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str) -> Engine:
    return ENGINES[name]


@pytest.fixture(scope="module")
def server(name: str, engine: Engine, wide_model: Path) -> Iterator[LocalServer]:
    flags = ["--model-path", str(wide_model), "--served-model-name", "wide", *SERVE, *engine.flags]
    with LocalServer(flags, command=[sys.executable, "-m", "toploc", "sglang"], start_timeout=120) as local:
        yield local
        (LOGS / f"server-{name}.log").write_text(local.log())


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
    with httpx.Client(base_url=server.url, timeout=120, limits=limits) as http, ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: http.post(path, json=body).raise_for_status().json(), bodies))


def said_of(what: str, figures: Sequence[tuple[float, float]]) -> None:
    most = [max(column) for column in zip(*figures, strict=True)]
    mean = sum(mismatches for mismatches, _ in figures) / len(figures)
    print(f"{what}: {len(figures)} chunks, mismatches {mean:.2f}, at most {most[0]}, mantissa mean {most[1]:.2f}")


@pytest.mark.parametrize("count", BATCHES)
def test_every_chunk_verifies(
    server: LocalServer, prefill: TransformersPrefill, name: str, engine: Engine, count: int
) -> None:
    figures, failed = [], []
    for number, answer in enumerate(ask(server, "/v1/completions", [body_of(seed) for seed in range(count)])):
        proofs = answer["toploc_proofs"]
        [choice] = proofs["choices"]
        assert "error" not in choice, choice
        states = prefill.hidden_states(proofs["prompt"]["token_ids"], choice["token_ids"])
        verdict = verify_activations(choice["proofs"], states)
        figures += [(chunk.mismatches, chunk.mantissa_mean) for chunk in verdict.chunks]
        aligned = all(chunk.mismatches <= ALIGNED for chunk in verdict.chunks)
        if not (verdict.passed if engine.exact else aligned):
            failed.append((number, verdict))
        shifted = verify_activations(choice["proofs"], torch.roll(states, 1, dims=0))
        # Memory of 8 bits makes rows more alike. There a shift lies beyond all that is aligned.
        bound = ALIGNED if engine.exact else max(chunk.mismatches for chunk in verdict.chunks)
        for place, chunk in enumerate(shifted.chunks[:-1]):
            # A greedy answer may repeat a few tokens, and its states with them.
            if len(set(choice["token_ids"][32 * place : 32 * place + 32])) > 20:
                assert chunk.mismatches > bound, (number, place)
    said_of(f"{name}, {count} at once, by transformers", figures)
    assert not failed, f"{len(failed)} of {count} answers: {failed[:3]}"


def test_the_server_verifies_its_answers(server: LocalServer, name: str, engine: Engine) -> None:
    bodies = [body_of(seed) for seed in range(48)]
    answers = ask(server, "/v1/completions", bodies)
    evidence = [{"request": body, "response": answer} for body, answer in zip(bodies, answers, strict=True)]
    reports = ask(server, "/v1/toploc/verify", evidence)
    checks = [check for report in reports for check in report["checks"] if check["name"] == "proofs"]
    chunks = [chunk for check in checks for chunk in check["figures"]["chunks"]]
    said_of(f"{name}, by itself", [(chunk["mismatches"], chunk["mantissa_mean"]) for chunk in chunks])
    verdicts = [report["verdict"] for report in reports]
    print(f"{name}, by itself: {verdicts.count('accepted')} of {len(verdicts)} accepted")
    assert all(chunk["mismatches"] <= ALIGNED for chunk in chunks)
    if engine.own:
        assert set(verdicts) == {"accepted"}, [report for report in reports if report["verdict"] != "accepted"][:2]
    for one in evidence:
        one["response"]["toploc_proofs"]["choices"][0]["proofs"].reverse()
    several = [one for one in evidence[1::2] if len(one["response"]["toploc_proofs"]["choices"][0]["proofs"]) > 1]
    assert {report["verdict"] for report in ask(server, "/v1/toploc/verify", several)} == {"rejected"}


def test_the_engine_says_how_it_computes(server: LocalServer, engine: Engine) -> None:
    said = httpx.get(f"{server.url}/v1/toploc").json()["engine"]
    assert {fact: said.get(fact) for fact, _ in engine.says} == dict(engine.says), said
    # SGLang's own word for every fifth step.
    ran_graphs = re.search("Decode batch.*cuda graph: True", server.log()) is not None
    assert ran_graphs == (("execution", "eager") not in engine.says)
