"""Two LoRA adapters and the base model in the same batches: each answer's proofs are those of its own weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from adapters import ADAPTERS, make_adapters, merged
from asking import Api
from options import NAME

from models.adapter import RANK
from models.corpus import exchange
from toploc.proofs.verdict import verify_activations
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs
    from toploc.verifier.prefill import TransformersPrefill

pytestmark = pytest.mark.sglang_all

NAMES = (NAME, *(f"{NAME}:{adapter}" for adapter in ADAPTERS))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def engines(
    adapters: dict[str, Path], prefill: TransformersPrefill, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TransformersPrefill]:
    """The independent engine of each model by its name in requests."""
    own = merged(adapters, tmp_path_factory.mktemp("merged"))
    return {NAME: prefill} | {f"{NAME}:{name}": engine for name, engine in own.items()}


@pytest.fixture(scope="module")
def adapted(launch: Callable[..., LocalServer], adapters: dict[str, Path]) -> Iterator[Api]:
    paths = [f"{name}={path}" for name, path in adapters.items()]
    options = ["--enable-lora", "--lora-backend", "torch_native", "--max-lora-rank", str(RANK), "--lora-paths", *paths]
    with launch(*options) as server, Api(server.url) as api:
        yield api


def messages(seed: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": exchange(Random(seed)).question}]


def ask(api: Api, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    options = {"max_tokens": 20 + 3 * seed, "temperature": seed % 2, "ignore_eos": True}
    body = {"model": NAMES[seed % 3], "messages": messages(seed), **options}
    return body, api.post("/v1/chat/completions", **body)


def test_each_answer_verifies_with_its_own_weights(
    adapted: Api, engines: dict[str, TransformersPrefill], verified: Callable[..., ToplocProofs]
) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda seed: ask(adapted, seed), range(24)))
    bounds = Thresholds.load(NAME)
    for body, answer in answers:
        assert answer["toploc_proofs"]["model"] == body["model"] == answer["model"]
        [choice] = verified(answer["toploc_proofs"], body["messages"], engine=engines[body["model"]]).choices
        for other in set(engines) - {body["model"]}:
            states = engines[other].hidden_states(engines[other].render(body["messages"]), choice.token_ids)
            assert not verify_activations(choice.proofs, states, thresholds=bounds).passed
    for body, answer in answers[:6]:
        report = adapted.report(answer, **body)
        assert report["verdict"] == "accepted", str(report)
        for other in set(NAMES) - {body["model"]}:
            field = {**answer["toploc_proofs"], "model": other}
            claimed = {**answer, "model": other, "toploc_proofs": field}
            assert adapted.report(claimed, **{**body, "model": other})["verdict"] == "rejected"


def test_an_adapter_that_the_model_does_not_name(adapted: Api) -> None:
    """SGLang answers by it all the same, under the model's name."""
    body = {"messages": messages(1), "max_tokens": 40, "lora_path": "first"}
    answer = adapted.post("/v1/chat/completions", **body)
    assert answer["choices"][0]["message"]["content"]
    assert answer["toploc_proofs"]["error"]["code"] == "model_name"
    # A request to /generate names none.
    asked = {"text": "The", "lora_path": "first", "sampling_params": {"max_new_tokens": 40, "ignore_eos": True}}
    whole = adapted.http.post("/generate", json=asked).json()
    assert whole["toploc_proofs"]["model"] == f"{NAME}:first"
