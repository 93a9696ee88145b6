"""A server that changes while it runs: adapters come and go, the engine sleeps and wakes, weights are replaced."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import alter
import pytest
from adapter import MODEL, RANK, make_adapter, merge
from corpus import exchange

from toploc.prefill import TransformersPrefill
from toploc.verify import verify_activations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx
    from conftest import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs
    from toploc.thresholds import Thresholds

# Reasoning is what stands between these (vllm/reasoning/granite_reasoning_parser.py): the bundled model has no tokens
# for `<think>`, so a grammar makes it write them.
THOUGHTS = r"Here is my thought process: [a-z ]{40,60}\. Here is my response: [a-z ]{40,60}\."
OPTIONS = [
    *("--reasoning-parser", "granite", "--structured-outputs-config", '{"enable_in_reasoning": true}'),
    # See test_lora.py for the slot that stays free.
    *("--enable-lora", "--max-loras", "2", "--max-lora-rank", str(RANK)),
]


@pytest.fixture(scope="module")
def changing(launch: Callable[..., LocalServer], api_of: type[Api]) -> Iterator[Api]:
    environment = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with launch(*OPTIONS, **environment) as server, api_of(server.url) as api:
        yield api


def messages(seed: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": exchange(Random(seed)).question}]


def answer(api: Api, seed: int, **body: Any) -> dict[str, Any]:
    return api.chat(messages(seed), **{"max_tokens": 70, "ignore_eos": True, **body})["toploc_proofs"]


def done(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text


def test_reasoning_is_proven_with_the_answer(changing: Api, verified: Callable[..., ToplocProofs]) -> None:
    """The parser moves and leaves out text; proofs cover the tokens."""
    for extra in ({}, {"include_reasoning": False}):
        body = {"structured_outputs": {"regex": THOUGHTS}, "max_tokens": 400, "temperature": 1, **extra}
        whole = changing.chat(messages(1), **body)
        [choice] = verified(whole["toploc_proofs"], messages(1)).choices
        message = whole["choices"][0]["message"]
        assert message["content"]
        assert bool(message.get("reasoning")) is not bool(extra)
        assert len(choice.token_ids) == whole["usage"]["completion_tokens"]

        events = changing.stream("/v1/chat/completions", messages=messages(2), **body)
        deltas = [choice["delta"] for event in events for choice in event.get("choices", [])]
        assert any(delta.get("content") for delta in deltas)
        assert any(delta.get("reasoning") for delta in deltas) is not bool(extra)
        [field] = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
        verified(field, messages(2))


def test_adapters_loaded_and_unloaded(changing: Api, verified: Callable[..., ToplocProofs], tmp_path: Path) -> None:
    """Another adapter under the same name: the proofs are of the one that is loaded."""
    for seed in (11, 12):
        adapter, merged = tmp_path / f"adapter-{seed}", tmp_path / f"merged-{seed}"
        make_adapter(adapter, seed)
        merge(adapter, merged)
        body = {"lora_name": "tuned", "lora_path": str(adapter)}
        done(changing.http.post("/v1/load_lora_adapter", json=body))
        field = answer(changing, seed, model="tuned")
        assert field["model"] == "tuned"
        verified(field, messages(seed), engine=TransformersPrefill(merged))
        verified(answer(changing, seed), messages(seed))
        done(changing.http.post("/v1/unload_lora_adapter", json={"lora_name": "tuned"}))
    assert changing.http.post("/v1/chat/completions", json={"model": "tuned", "messages": messages(1)}).is_client_error


def test_sleep_reload_and_wake(
    changing: Api,
    prefill: TransformersPrefill,
    verified: Callable[..., ToplocProofs],
    calibrated: Thresholds,
    tmp_path: Path,
) -> None:
    """Proofs are of the weights that are loaded, and of no other; the last in the module, though it puts them back."""
    copy = alter.make("int4", MODEL, tmp_path / "int4")
    for weights, engine, other in ((copy, TransformersPrefill(copy), prefill), (MODEL, prefill, None)):
        # Also drops the prefix cache, which is of the old weights.
        done(changing.http.post("/sleep", params={"level": 1}))
        assert changing.http.get("/is_sleeping").json() == {"is_sleeping": True}
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
        done(changing.http.post("/collective_rpc", json=body))
        done(changing.http.post("/wake_up"))
        for seed in range(4):
            field = answer(changing, seed)
            [choice] = verified(field, messages(seed), engine=engine).choices
            if other is not None:
                states = other.hidden_states(other.render(messages(seed)), choice.token_ids)
                assert not verify_activations(choice.proofs, states, thresholds=calibrated).passed
