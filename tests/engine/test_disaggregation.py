"""A prompt's keys and values that another engine made, or an earlier request: the rows of the answer are right, and the
first of them, the last position of the prompt, is computed where the answer is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch

from toploc.protocol import ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asking import Api
    from toploc_proxy.local_server import LocalServer

SMALL = ["--max-model-len", "1024", "--max-num-seqs", "4", "--no-enable-prefix-caching"]
BODY: dict[str, Any] = {"temperature": 0, "max_tokens": 70, "ignore_eos": True}
HITS = "vllm:external_prefix_cache_hits_total"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kv")


@pytest.fixture(scope="module")
def engine(launch: Callable[..., LocalServer], storage: Path, api_of: type[Api]) -> Callable[[str], LocalServer]:
    def make(role: str) -> LocalServer:
        connector = {
            "kv_connector": "ExampleConnector",
            "kv_role": role,
            "kv_connector_extra_config": {"shared_storage_path": str(storage)},
        }
        return launch(*SMALL, "--kv-transfer-config", json.dumps(connector))

    return make


@pytest.fixture(scope="module")
def prefilling(engine: Callable[[str], LocalServer], api_of: type[Api]) -> Iterator[Api]:
    with engine("kv_both") as server, api_of(server.url) as api:
        yield api


@pytest.fixture(scope="module")
def decoding(engine: Callable[[str], LocalServer], prefilling: Api, api_of: type[Api]) -> Iterator[Api]:
    with engine("kv_consumer") as server, api_of(server.url) as api:
        api.chat([{"role": "user", "content": "Hello"}], max_tokens=1)  # metrics are there from the first answer on
        yield api


def prompt(name: str) -> list[dict[str, Any]]:
    """Longer than a block of the engine's cache."""
    return [{"role": "user", "content": f"{name}: " + "Tell me of the moon, the sun and the sea. " * 40}]


def test_a_prompt_from_a_connectors_storage(prefilling: Api, verified: Callable[..., ToplocProofs]) -> None:
    asked = prompt("one engine")
    first = prefilling.chat(asked, **BODY)
    before = prefilling.metric(HITS)
    again = prefilling.chat(asked, **BODY)
    assert prefilling.metric(HITS) > before
    for response in (first, again):
        assert len(verified(response["toploc_proofs"], asked).choices[0].token_ids) == 70


@pytest.mark.parametrize("tokens", [1, 70])
@pytest.mark.parametrize("stream", [False, True])
def test_one_engine_prefills_and_another_decodes(
    prefilling: Api, decoding: Api, verified: Callable[..., ToplocProofs], tokens: int, stream: bool
) -> None:
    asked = prompt(f"two engines, {tokens}, {stream}")
    started = prefilling.chat(asked, **BODY | {"max_tokens": 1})
    verified(started["toploc_proofs"], asked)
    before = decoding.metric(HITS)
    body = {"messages": asked, **BODY, "max_tokens": tokens}
    if stream:
        events = decoding.stream("/v1/chat/completions", **body)
        [field] = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
    else:
        response = decoding.post("/v1/chat/completions", **body)
        field = response["toploc_proofs"]
        # The verification's own prefill reads nothing from elsewhere.
        hits = decoding.metric(HITS)
        assert decoding.report(response, **body)["verdict"] == "accepted"
        assert decoding.metric(HITS) == hits
    assert decoding.metric(HITS) > before
    choice = verified(field, asked).choices[0]
    assert len(choice.token_ids) == tokens
    assert choice.token_ids[0] == started["toploc_proofs"]["choices"][0]["token_ids"][0]


def test_keys_and_values_of_another_model_are_found(prefilling: Api, decoding: Api, storage: Path) -> None:
    """Whoever prefills answers for what the decoder proves."""
    asked = prompt("altered")
    known = set(storage.iterdir())
    prefilling.chat(asked, **BODY | {"max_tokens": 1})
    [made] = set(storage.iterdir()) - known
    for file in made.iterdir():
        tensors = safetensors.torch.load_file(file)
        safetensors.torch.save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, file)
    before = decoding.metric(HITS)
    body = {"messages": asked, **BODY}
    response = decoding.post("/v1/chat/completions", **body)
    assert decoding.metric(HITS) > before
    ToplocProofs.model_validate(response["toploc_proofs"])
    report = decoding.report(response, **body)
    assert report["verdict"] == "rejected"
    assert any(check["name"] == "proofs" and check["status"] == "failed" for check in report["checks"])
