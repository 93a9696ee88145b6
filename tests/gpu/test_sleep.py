"""Memory that goes while the engine sleeps, the ring's with it, and weights that are gone for good."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from toploc_proxy.local_server import LocalServer

from toploc.proofs.verdict import verify_activations
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.gpu

IDS = list(range(20, 60))
BODY = {"model": "wide", "prompt": IDS, "temperature": 1, "ignore_eos": True, "toploc": {"prompt_token_ids": True}}


@pytest.fixture(scope="module")
def prefill(wide_model: Path) -> TransformersPrefill:
    return TransformersPrefill(wide_model, device="cuda")


@pytest.fixture(scope="module")
def http(wide_model: Path) -> Iterator[httpx.Client]:
    options = ["--served-model-name", "wide", "--max-model-len", "4096", "--enable-sleep-mode"]
    # With a size of the cache given, nobody measures memory while a neighbour takes or frees its own.
    options += ["--gpu-memory-utilization", "0.3", "--kv-cache-memory-bytes", "4G"]
    environment = {"VLLM_SERVER_DEV_MODE": "1"}
    with (
        LocalServer([str(wide_model), *options], environment=environment, start_timeout=600) as local,
        httpx.Client(base_url=local.url, timeout=300) as client,
    ):
        yield client


def told(http: httpx.Client, path: str, **request: Any) -> None:
    reply = http.post(path, **request)
    assert reply.status_code == 200, reply.text


def proven(http: httpx.Client, prefill: TransformersPrefill) -> dict[str, Any]:
    """The one choice of an answer, after its chunks were held against a prefill, and all of it against the server."""
    body = {**BODY, "max_tokens": 100}
    answer = http.post("/v1/completions", json=body).json()
    [choice] = answer["toploc_proofs"]["choices"]
    assert "error" not in choice, choice
    states = prefill.hidden_states(IDS, choice["token_ids"])
    assert verify_activations(choice["proofs"], states).passed
    report = http.post("/v1/toploc/verify", json={"request": body, "response": answer}).json()
    assert report["verdict"] == "accepted", str(report)
    found: dict[str, Any] = choice
    return found


def test_proofs_before_and_after(http: httpx.Client, prefill: TransformersPrefill) -> None:
    for _ in range(2):
        proven(http, prefill)
        told(http, "/sleep", params={"level": 1})
        told(http, "/wake_up")
    assert "weights" not in proven(http, prefill)


def test_an_answer_that_sleeps_in_the_middle_has_no_proofs(http: httpx.Client, prefill: TransformersPrefill) -> None:
    """Nothing is read of memory that was gone; the text goes on."""
    events: list[dict[str, Any]] = []

    def ask() -> None:
        body = {**BODY, "max_tokens": 4000, "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as reply:
            events.extend(json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {"))

    thread = threading.Thread(target=ask)
    thread.start()
    while len(events) < 100 and thread.is_alive():
        time.sleep(0.001)
    told(http, "/sleep", params={"level": 1, "mode": "keep"})
    told(http, "/wake_up")
    thread.join()
    [field] = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
    assert field["error"]["code"] == "asleep", field
    proven(http, prefill)


def test_weights_that_are_loaded_again(http: httpx.Client, prefill: TransformersPrefill, wide_model: Path) -> None:
    """Of sleep's second level nothing comes back."""
    told(http, "/sleep", params={"level": 2})
    told(http, "/wake_up", params={"tags": "weights"})
    loading = {"method": "reload_weights", "kwargs": {"weights_path": str(wide_model)}}
    told(http, "/collective_rpc", json=loading)
    told(http, "/wake_up", params={"tags": "kv_cache"})
    [span] = proven(http, prefill)["weights"]
    assert (span["start"], span["end"]) == (0, 100)
    assert span["version"] > 0
