"""What operators do to a server that runs: sleep, wake, other weights. And answers that begin with reasoning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alter
import pytest
from toploc_proxy.local_server import LocalServer

from toploc.prefill import TransformersPrefill
from toploc.protocol import ToplocProofs
from toploc.verify import verify_activations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Api

    from toploc.thresholds import Thresholds

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
STORY = [{"role": "user", "content": "Tell me a story."}]
# Added tokens of the bundled model that its stories do not need.
THINK = {"<tool_response>": "<think>", "</tool_response>": "</think>"}
END_OF_THOUGHT = 1023


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with tokens that a reasoning parser looks for."""
    copy = tmp_path_factory.mktemp("thinker") / "model"
    shutil.copytree(MODEL, copy)
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["content"] = THINK.get(token["content"], token["content"])
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    return copy


@pytest.fixture(scope="module")
def running(thinker: Path, api_of: type[Api]) -> Iterator[Api]:
    options = ["--served-model-name", "toploc-mini", "--enforce-eager", "--max-model-len", "2048"]
    options += ["--reasoning-parser", "deepseek_r1"]
    with (
        LocalServer([str(thinker), *options], environment={"VLLM_SERVER_DEV_MODE": "1"}) as server,
        api_of(server.url) as api,
    ):
        yield api


def generate(api: Api, **body: Any) -> dict[str, Any]:
    return api.chat(STORY, temperature=1, ignore_eos=True, max_tokens=100, **body)


def test_reasoning(running: Api, verified: Callable[..., ToplocProofs]) -> None:
    """Parsers cut an answer's text in two; its tokens stay whole."""
    response = generate(running, n=8, logit_bias={str(END_OF_THOUGHT): 12})
    proofs = verified(response["toploc_proofs"], STORY)
    assert all(len(choice.token_ids) == 100 for choice in proofs.choices)
    messages = [choice["message"] for choice in response["choices"]]
    assert any(message.get("reasoning") and message.get("content") for message in messages), messages


def test_reasoning_in_a_stream(running: Api, verified: Callable[..., ToplocProofs]) -> None:
    events = running.stream(
        "/v1/chat/completions",
        messages=STORY,
        temperature=1,
        max_tokens=100,
        ignore_eos=True,
        logit_bias={str(END_OF_THOUGHT): 12},
    )
    [field] = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
    [choice] = verified(field, STORY).choices
    assert len(choice.token_ids) == 100
    assert any(event["choices"] and event["choices"][0]["delta"].get("reasoning") for event in events)


def test_sleep_and_wake(running: Api, verified: Callable[..., ToplocProofs]) -> None:
    verified(generate(running)["toploc_proofs"], STORY)
    assert running.http.post("/sleep?level=1").is_success
    assert running.http.get("/is_sleeping").json() == {"is_sleeping": True}
    assert running.http.post("/wake_up").is_success
    verified(generate(running)["toploc_proofs"], STORY)


def test_other_weights(
    running: Api, verified: Callable[..., ToplocProofs], calibrated: Thresholds, tmp_path: Path
) -> None:
    """Proofs are of the weights that answer, from the first token after they were loaded."""
    other = alter.make("finetuned", MODEL, tmp_path / "finetuned")
    engine = TransformersPrefill(other)
    for weights, prefill in ((other, engine), (MODEL, None)):
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
        assert running.http.post("/collective_rpc", json=call).is_success
        assert running.http.post("/reset_prefix_cache").is_success
        field = generate(running)["toploc_proofs"]
        if prefill is None:
            verified(field, STORY)
            continue
        verified(field, STORY, engine=prefill)
        honest = TransformersPrefill(MODEL)
        [choice] = ToplocProofs.model_validate(field).choices
        states = honest.hidden_states(honest.render(STORY), choice.token_ids)
        assert not verify_activations(choice.proofs, states, thresholds=calibrated).passed
