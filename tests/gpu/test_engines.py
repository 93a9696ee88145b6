"""Proofs of real vLLM engines on GPUs, verified by a transformers prefill and by the server itself."""

from __future__ import annotations

import importlib.util
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import torch
from served import ADAPTER, DRAFTER, ENGINES, MODEL, Engine
from toploc_proxy.local_server import LocalServer, free_port

from models.adapter import make_adapter, merge
from models.drafters import eagle3
from toploc.proofs.verdict import verify_activations
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.gpu

# Other weights, or another memory, than the prefill's: of 128 exponents so many differ at most. A shifted row, or
# another answer's, leaves hardly any equal.
ALIGNED = 64


@pytest.fixture(scope="module")
def adapter(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "adapted"
    make_adapter(path, 1, model=wide_model)
    return path


@pytest.fixture(scope="module")
def prefill(wide_model: Path) -> TransformersPrefill:
    return TransformersPrefill(wide_model, device="cuda")


@pytest.fixture(scope="module")
def adapted_prefill(wide_model: Path, adapter: Path) -> TransformersPrefill:
    merge(adapter, adapter.with_name("merged"), model=wide_model)
    return TransformersPrefill(adapter.with_name("merged"), device="cuda")


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    """With `-n 4 --dist loadgroup` each is started once, four at a time."""
    engine = ENGINES[request.param]
    if torch.cuda.device_count() < engine.gpus:
        pytest.skip(f"takes {engine.gpus} GPUs")
    if request.param == "Ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    return engine


@pytest.fixture(scope="module")
def server(
    engine: Engine, wide_model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServer]:
    secret = tmp_path_factory.mktemp("channel") / "secret"
    secret.write_text("7" * 64)
    secret.chmod(0o600)
    names = {MODEL: str(wide_model), ADAPTER: str(adapter), "SECRET": str(secret)}
    if DRAFTER in " ".join(engine.flags):
        names[DRAFTER] = eagle3(tmp_path_factory.mktemp("drafter") / "model", wide_model)["model"]
    names["CHANNEL"] = f"tcp://127.0.0.1:{free_port()}"
    flags = [re.sub("|".join(names), lambda found: names[found.group()], flag) for flag in engine.flags]
    common = [str(wide_model), "--served-model-name", "wide", "--max-model-len", "1024"]
    # With a size of the cache given, nobody measures memory while a neighbour takes or frees its own.
    common += ["--gpu-memory-utilization", "0.3", "--kv-cache-memory-bytes", "4G"]
    environment = dict(engine.environment)
    if engine.gpus == 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        environment["CUDA_VISIBLE_DEVICES"] = str(worker % torch.cuda.device_count())
    with LocalServer([*common, *flags], environment=environment, start_timeout=600) as local:
        yield local


def body_of(seed: int, model: str, *, seeded: bool) -> dict[str, Any]:
    """One completion of random length after a random prompt; every fourth ends early, or has two choices."""
    generator = random.Random(seed)
    return {
        "model": model,
        "prompt": [generator.randrange(10, 500) for _ in range(generator.randrange(5, 200))],
        "max_tokens": generator.choice([1, 31, 32, 33, 64, 70, 96, 119, 200]),
        "temperature": seed % 2,
        "n": 2 if seed % 4 == 1 else 1,
        "ignore_eos": seed % 3 > 0,
        "toploc": {"prompt_token_ids": True},
        **({"seed": seed} if seeded else {}),
    }


def ask_all(server: LocalServer, engine: Engine) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Bodies and responses of answers that were made together; of an engine with an adapter, every third is its. They
    have seeds where the server's sampler has a name, as `toploc_client` does it."""
    names = ["wide", "wide", "adapted"] if ADAPTER in " ".join(engine.flags) else ["wide"]
    with httpx.Client(base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=None)) as http:
        seeded = is_seeded(http)

        def ask(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
            body = body_of(seed, names[seed % len(names)], seeded=seeded)
            reply = http.post("/v1/completions", json=body)
            assert reply.status_code == 200, reply.text
            return body, reply.json()

        with ThreadPoolExecutor(24) as pool:
            return list(pool.map(ask, range(48)))


def is_seeded(http: httpx.Client) -> bool:
    return http.get("/v1/toploc").json().get("sampler") is not None


def test_every_chunk_verifies(
    server: LocalServer, engine: Engine, prefill: TransformersPrefill, request: pytest.FixtureRequest
) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    described = client.get("/toploc", cast_to=dict[str, Any])["engine"]
    assert described["model_runner"] == (engine.runner or described["model_runner"])
    answers = ask_all(server, engine)
    if "--num-gpu-blocks-override" in engine.flags:
        metrics = httpx.get(f"{server.url}/metrics").text
        assert float(re.findall(r"^vllm:num_preemptions_total.* (\S+)$", metrics, re.MULTILINE)[0]) > 0
    figures = []
    for seed, (body, response) in enumerate(answers):
        adapted = body["model"] == "adapted"
        weights = request.getfixturevalue("adapted_prefill") if adapted else prefill
        proofs = response["toploc_proofs"]
        assert "error" not in proofs, proofs
        for choice in proofs["choices"]:
            assert "error" not in choice, choice
            states = weights.hidden_states(proofs["prompt"]["token_ids"], choice["token_ids"])
            verdict = verify_activations(choice["proofs"], states)
            misplaced = [chunk for chunk in verdict.chunks if chunk.mismatches > ALIGNED]
            # An adapter's products are rounded before they are added; merged ones are not.
            exact = engine.exact and not adapted
            assert verdict.passed if exact else not misplaced, (seed, choice["index"], verdict)
            figures += [(c.mismatches, c.mantissa_mean, c.mantissa_median) for c in verdict.chunks]
            # A greedy answer may repeat one token, and its states with it.
            if seed % 2 and len(choice["token_ids"]) >= 31:
                shifted = verify_activations(choice["proofs"], torch.roll(states, 1, dims=0))
                assert not shifted.passed
                assert all(chunk.mismatches > ALIGNED for chunk in shifted.chunks)
    worst = [max(column) for column in zip(*figures, strict=True)]
    print(f"{len(figures)} chunks, worst mismatches {worst[0]}, mantissa mean {worst[1]:.2f}, median {worst[2]}")


def test_the_server_verifies_its_answers(server: LocalServer, engine: Engine) -> None:
    """Of any of its engines, by any; each token is drawn again where the sampler has a name."""
    answers = ask_all(server, engine)
    with httpx.Client(base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=None)) as http:

        def report(answer: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
            reply = http.post("/v1/toploc/verify", json={"request": answer[0], "response": answer[1]})
            assert reply.status_code == 200, reply.text
            return reply.json()

        with ThreadPoolExecutor(24) as pool:
            for (body, response), found in zip(answers, pool.map(report, answers), strict=True):
                assert found["verdict"] == "accepted", str(found)
                tokens = {check["status"] for check in found["checks"] if check["name"] == "tokens"}
                expected = "passed" if "seed" in body or not body["temperature"] else "weak"
                assert tokens == {expected}, found
                for choice in response["toploc_proofs"]["choices"]:
                    choice["proofs"].reverse()
                    choice["token_ids"].reverse()
            sampled = [answer for answer in answers[1::2] if answer[0]["max_tokens"] > 31]
            assert {found["verdict"] for found in pool.map(report, sampled)} == {"rejected"}
