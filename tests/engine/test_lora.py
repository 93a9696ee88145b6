"""Two LoRA adapters and the base model in the same batches: each answer's proofs are those of its own weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from adapters import ADAPTERS, make_adapters, merged

from models.adapter import RANK
from models.corpus import exchange
from toploc.proofs.verdict import verify_activations
from toploc.protocol import ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.thresholds.bounds import Thresholds
    from toploc.verifier.prefill import TransformersPrefill


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def engines(
    adapters: dict[str, Path], prefill: TransformersPrefill, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TransformersPrefill]:
    """The independent engine of each model by its served name."""
    return {"toploc-mini": prefill} | merged(adapters, tmp_path_factory.mktemp("merged"))


@pytest.fixture(scope="module")
def adapted(launch: Callable[..., LocalServer], api_of: type[Api], adapters: dict[str, Path]) -> Iterator[Api]:
    # One slot more than adapters: on a CPU, vLLM 0.32 takes the last slot's adapter for rows that have none as soon as
    # another row of the batch has one (vllm-project/vllm#48421).
    modules = [f"{name}={path}" for name, path in adapters.items()]
    options = ["--enable-lora", "--max-loras", "3", "--max-lora-rank", str(RANK), "--lora-modules", *modules]
    with launch(*options) as server, api_of(server.url) as api:
        yield api


def messages(seed: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": exchange(Random(seed)).question}]


def answers(api: Api, count: int) -> list[tuple[str, int, dict[str, Any]]]:
    """Model, question and field of answers that were made together."""
    names = ["toploc-mini", *ADAPTERS]

    def ask(seed: int) -> tuple[str, int, dict[str, Any]]:
        body: dict[str, Any] = {"model": names[seed % 3], "max_tokens": 20 + 3 * seed, "temperature": 1}
        return names[seed % 3], seed, api.chat(messages(seed), ignore_eos=True, **body)["toploc_proofs"]

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def test_each_answer_verifies_with_its_own_weights(
    adapted: Api, engines: dict[str, TransformersPrefill], verified: Callable[..., ToplocProofs]
) -> None:
    for name, seed, field in answers(adapted, 24):
        assert field["model"] == name
        verified(field, messages(seed), engine=engines[name])


def test_and_with_no_other(adapted: Api, engines: dict[str, TransformersPrefill], calibrated: Thresholds) -> None:
    for name, seed, field in answers(adapted, 6):
        [choice] = ToplocProofs.model_validate(field).choices
        for other in set(engines) - {name}:
            states = engines[other].hidden_states(engines[other].render(messages(seed)), choice.token_ids)
            assert not verify_activations(choice.proofs, states, thresholds=calibrated).passed


def test_the_server_verifies_answers_of_each(adapted: Api) -> None:
    names = ["toploc-mini", *ADAPTERS]

    def ask(seed: int) -> None:
        name = names[seed % 3]
        options = {"max_tokens": 70, "temperature": seed % 2, "ignore_eos": True}
        body = {"model": name, "messages": messages(seed), **options}
        response = adapted.post("/v1/chat/completions", **body)
        report = adapted.report(response, **body)
        assert report["verdict"] == "accepted", str(report)
        assert {check["name"]: check["status"] for check in report["checks"]}["tokens"] == (
            "weak" if seed % 2 else "passed"
        )
        for other in {*names} - {name}:
            field = {**response["toploc_proofs"], "model": other}
            report = adapted.report({**response, "model": other, "toploc_proofs": field}, **{**body, "model": other})
            assert report["verdict"] == "rejected"
            assert "activations" in {check["reason"] for check in report["checks"]}

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
