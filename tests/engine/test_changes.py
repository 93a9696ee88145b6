"""A server that changes while it runs: adapters come and go, the engine sleeps and wakes, weights are replaced."""

from __future__ import annotations

import copy
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from mcp_tool import tool_server

from models import alter, corpus
from models.adapter import ADAPTED, MODEL, RANK, make_adapter, merge
from models.corpus import exchange
from toploc.proofs.verdict import verify_activations
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx
    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs
    from toploc.thresholds.bounds import Thresholds

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
    environment = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        # Else only gpt-oss goes on after a tool that the server runs.
        "VLLM_USE_EXPERIMENTAL_PARSER_CONTEXT": "1",
    }
    with (
        tool_server() as tools,
        launch(*OPTIONS, *TOOLS, "--tool-server", tools, **environment) as server,
        api_of(server.url) as api,
    ):
        yield api


TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
# The bundled model knows of no interpreter, so a grammar has it call one where it would call `add`.
CALL = r'<tool_call>\n\{"name": "code_interpreter", "arguments": \{"code": "[0-9+]{1,12}"\}\}\n</tool_call>'
ANSWER = r"[A-Za-z0-9 +=]{1,40}\."


def messages(seed: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": exchange(Random(seed)).question}]


def answer(api: Api, seed: int, **body: Any) -> dict[str, Any]:
    return api.chat(messages(seed), **{"max_tokens": 70, "ignore_eos": True, **body})["toploc_proofs"]


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    """Each check's status, or its reason where it has not passed; the answer is accepted."""
    assert report["verdict"] == "accepted", str(report)
    return {check["name"]: check["reason"] or check["status"] for check in report["checks"]}


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
        found = outcomes(changing.report(whole, messages=messages(1), **body))
        assert (found["response"], found["tokens"]) == ("passed", "unseeded")

        events = changing.stream("/v1/chat/completions", messages=messages(2), **body)
        deltas = [choice["delta"] for event in events for choice in event.get("choices", [])]
        assert any(delta.get("content") for delta in deltas)
        assert any(delta.get("reasoning") for delta in deltas) is not bool(extra)
        [field] = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
        verified(field, messages(2))


def test_turns_with_a_tool_that_the_server_runs(changing: Api) -> None:
    """Each turn of one response has a prompt of its own, which the verifier renders from what came before it."""
    interpreter = {"type": "code_interpreter", "container": {"type": "auto"}}
    body = {
        "input": "What is 17 + 25?",
        "tools": [{"type": "function", **corpus.TOOLS["add"]["function"]}, interpreter],
        "structured_outputs": {"regex": f"{CALL}|{ANSWER}"},
        "temperature": 0,
    }
    response = changing.post("/v1/responses", **body)
    assert [item["type"] for item in response["output"]] == ["mcp_call", "message"]
    first, second = response["toploc_proofs"]["choices"]
    assert second["prompt"]["num_tokens"] > response["toploc_proofs"]["prompt"]["num_tokens"] + len(first["token_ids"])
    report = changing.report(response, **body)
    assert report["verdict"] == "accepted", str(report)
    found = [(check["name"], check["choice"], check["reason"]) for check in report["checks"] if check["choice"] == 1]
    assert ("prompt", 1, None) in found
    assert ("response", None, None) in [(c["name"], c["choice"], c["reason"]) for c in report["checks"]]

    def of(change: Callable[[dict[str, Any]], object]) -> tuple[str, set[tuple[str, int | None]]]:
        forged = copy.deepcopy(response)
        change(forged)
        report = changing.report(forged, **body)
        failed = {(c["name"], c["choice"]) for c in report["checks"] if c["status"] in ("failed", "undecided")}
        return report["verdict"], failed

    assert of(lambda forged: forged["output"][0].update(output="43")) == (
        "rejected",
        {("prompt", 1), ("proofs", 1), ("tokens", 1), ("response", None)},
    )
    unsaid = {("prompt", 1), ("response", None)}
    assert of(lambda forged: forged["output"][0].update(output=None)) == ("undecided", unsaid)
    verdict, failed = of(lambda forged: forged["output"][1]["content"][0].update(text="43."))
    assert (verdict, failed) == ("rejected", {("response", None)})
    swapped = {"proofs": first["proofs"], "token_ids": first["token_ids"]}
    assert of(lambda forged: forged["toploc_proofs"]["choices"][1].update(swapped))[0] == "rejected"


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
        tuned = {"model": "tuned", "messages": messages(seed), "max_tokens": 70, "temperature": 0}
        assert outcomes(changing.report(changing.post("/v1/chat/completions", **tuned), **tuned))["tokens"] == "passed"
        done(changing.http.post("/v1/unload_lora_adapter", json={"lora_name": "tuned"}))
    assert changing.http.post("/v1/chat/completions", json={"model": "tuned", "messages": messages(1)}).is_client_error


def test_an_adapter_of_the_output_head(changing: Api, tmp_path: Path) -> None:
    """The head that scores tokens is the base model's, so there are no scores where an adapter has another."""
    make_adapter(tmp_path / "adapter", 13, [*ADAPTED, "lm_head"])
    body = {"lora_name": "head", "lora_path": str(tmp_path / "adapter")}
    done(changing.http.post("/v1/load_lora_adapter", json=body))
    asked = {"model": "head", "messages": messages(3), "max_tokens": 70, "temperature": 0, "ignore_eos": True}
    found = outcomes(changing.report(changing.post("/v1/chat/completions", **asked), **asked))
    assert (found["proofs"], found["tokens"]) == ("passed", "no_logits")
    done(changing.http.post("/v1/unload_lora_adapter", json={"lora_name": "head"}))


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
