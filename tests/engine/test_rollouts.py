"""What training by rollouts does to a server: tokens in and out, and weights that are replaced while it answers."""

from __future__ import annotations

import copy
import json
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import alter
from toploc.evidence.assembly import Assembly
from toploc.protocol import FIELD_NAME, ToplocProofs
from toploc.receipts.keys import load_trusted_keys
from toploc.receipts.receipt import verify_receipt
from toploc.scheme import CHUNK_SIZE
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.transformers import TransformersVerifier
from toploc.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.receipts.keys import PublicKey
    from toploc.report import Report
    from toploc.verifier.prefill import TransformersPrefill

    Json = dict[str, Any]

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
GENERATE, CHAT = "/inference/v1/generate", "/v1/chat/completions"
IDS = list(range(300, 312))
STORY = {"messages": [{"role": "user", "content": "What is a proof?"}], "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def rollouts(launch: Callable[..., LocalServer], api_of: type[Api], signing: tuple[Path, PublicKey]) -> Iterator[Api]:
    key = str(signing[0])
    options = ["--enable-scale-out", "--toploc-signing-key", key, "--toploc-trusted-keys", key]
    options += ["--weight-transfer-config", '{"backend": "folder"}']
    options += ["--worker-extension-cls", "weight_folder.Registered"]
    with launch(*options, VLLM_SERVER_DEV_MODE="1") as server, api_of(server.url) as api:
        yield api


def tokens(api: Api, **body: Any) -> tuple[Json, Json]:
    """Request and response, put together where it is a stream."""
    request = {"model": "toploc-mini", "token_ids": IDS, **body}
    if not request.get("stream"):
        return request, api.post(GENERATE, **request)
    assembly, field = Assembly(), None
    for event in api.stream(GENERATE, **request):
        field = event.pop(FIELD_NAME, field)
        assembly.add(event)
    response = assembly.response()
    assert response is not None
    return request, {**response, FIELD_NAME: field}


def reasons(report: Json) -> dict[str, str]:
    return {check["name"]: check["reason"] or check["status"] for check in report["checks"]}


@pytest.fixture(scope="module")
def transformers(prefill: TransformersPrefill) -> TransformersVerifier:
    return TransformersVerifier(prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tokens_for_tokens(rollouts: Api, transformers: TransformersVerifier, stream: bool) -> None:
    request, response = tokens(
        rollouts,
        sampling_params={"seed": 3, "max_tokens": 70, "n": 2, "ignore_eos": True},
        return_token_ids=True,
        stream=stream,
    )
    assert response["prompt_token_ids"] == IDS
    assert [len(choice["token_ids"]) for choice in response["choices"]] == [70, 70]
    kept = rollouts.http.get(f"/v1/toploc/proofs/{response['request_id']}").json()
    assert kept["toploc_proofs"] == response[FIELD_NAME]
    report = rollouts.report(response, **request)
    assert (report["verdict"], reasons(report)["receipt"]) == ("accepted", "passed"), report
    found = transformers.verify(json.dumps({"request": request, "response": response}))
    assert found.verdict == "accepted", str(found)
    assert {check.name for check in found.checks} >= {"prompt", "finish", "tokens", "response"}


FORGERIES: dict[str, Callable[[Json], object]] = {
    "a token": lambda r: r["choices"][0]["token_ids"].__setitem__(3, 7),
    "a token less": lambda r: r["choices"][0]["token_ids"].pop(),
    "a token of the prompt": lambda r: r["prompt_token_ids"].__setitem__(3, 7),
    "a log-probability": lambda r: r["choices"][0]["logprobs"]["content"][5].update(logprob=-9.0),
    "a likelier alternative": lambda r: r["choices"][0]["logprobs"]["content"][5]["top_logprobs"][1].update(token_id=7),
    "a log-probability's token": lambda r: r["choices"][0]["logprobs"]["content"][5].update(token_id=7),
    "a log-probability of the prompt": lambda r: next(iter(r["prompt_logprobs"][3].values())).update(logprob=-0.5),
    "its end": lambda r: r["choices"][0].update(finish_reason="stop"),
}


def test_what_a_trainer_reads_is_bound(rollouts: Api, transformers: TransformersVerifier) -> None:
    """Token ids and log-probabilities, as importance ratios are made of them."""
    request, response = tokens(
        rollouts,
        sampling_params={"temperature": 1.5, "max_tokens": 40, "ignore_eos": True, "logprobs": 2, "prompt_logprobs": 1},
        return_token_ids=True,
    )
    assert rollouts.report(response, **request)["verdict"] == "accepted"
    for name, forge in FORGERIES.items():
        forged = copy.deepcopy(response)
        forge(forged)
        report = rollouts.report(forged, **request)
        assert report["verdict"] == "rejected", (name, report)
        for choice in forged[FIELD_NAME]["choices"]:
            del choice["receipt"]
        found = transformers.verify(json.dumps({"request": request, "response": forged}))
        assert found.verdict == ("undecided" if "probability" in name or "alternative" in name else "rejected"), name


OF_THE_ENGINE: dict[str, Callable[[Json], Any]] = {
    "routed_experts": lambda r: r["choices"][0].update(routed_experts="k05VTVBZAQB2AHsn"),
    "sampling_mask": lambda r: r["choices"][0].update(sampling_mask=[[5, 7]] * 20),
    "prompt_token_id_logprobs": lambda r: r.update(prompt_token_id_logprobs=[[-1.5, -2.5]]),
    "kv_transfer_params": lambda r: r.update(kv_transfer_params={"remote_engine_id": "a", "remote_block_ids": [1]}),
    "ec_transfer_params": lambda r: r.update(ec_transfer_params={"peer": {"port": 1}}),
}


@pytest.mark.parametrize("name", OF_THE_ENGINE)
def test_what_the_engine_alone_knows_accuses_nobody(
    rollouts: Api, transformers: TransformersVerifier, name: str
) -> None:
    """As `--enable-return-routed-experts`, `--return-sampling-mask`, `prompt_logprob_token_ids` and connectors add it,
    which take a GPU."""
    request, response = tokens(rollouts, sampling_params={"temperature": 0, "max_tokens": 20, "ignore_eos": True})
    OF_THE_ENGINE[name](response)
    del response[FIELD_NAME]["choices"][0]["receipt"]
    report = rollouts.report(response, **request)
    assert (report["verdict"], reasons(report)["response"]) == ("undecided", "not_bound"), report
    found = transformers.verify(json.dumps({"request": request, "response": response}))
    assert (found.verdict, {check.reason for check in found.checks if check.name == "response"}) == (
        "undecided",
        {"not_bound"},
    )
    response["choices"][0]["token_ids"][3] += 1
    assert rollouts.report(response, **request)["verdict"] == "rejected"


def test_a_receipt_covers_the_tokens_that_are_shown(rollouts: Api, signing: tuple[Path, PublicKey]) -> None:
    """Nobody can put others beside them and blame the provider."""
    keys = load_trusted_keys(str(signing[0]))
    for stream in (False, True):
        request, response = tokens(
            rollouts, sampling_params={"max_tokens": 5}, output_mode="text", return_token_ids=True, stream=stream
        )
        [result] = verify_receipt(request, response, keys)
        assert (result.status, result.statement.weights_sha256) == ("passed", weights_digest(MODEL))
        forged = copy.deepcopy(response)
        forged["choices"][0]["token_ids"][0] += 1
        assert [r.reason for r in verify_receipt(request, forged, keys)] == ["tokens_differ"]
        forged = copy.deepcopy(response)
        forged["prompt_token_ids"][0] += 1
        assert [r.reason for r in verify_receipt(request, forged, keys)] == ["prompt_differs"]
        forged = copy.deepcopy(response)
        forged["choices"][0]["text"] += "x"
        assert [r.reason for r in verify_receipt(request, forged, keys)] == ["output_differs"]


@pytest.mark.parametrize(
    "body",
    [{"prompt": "one, two", "logprobs": 2}, {"messages": STORY["messages"], "logprobs": True}],
    ids=["completion", "chat"],
)
def test_token_ids_of_other_routes_are_bound(rollouts: Api, transformers: TransformersVerifier, body: Json) -> None:
    path = CHAT if "messages" in body else "/v1/completions"
    request = {"model": "toploc-mini", **body, "max_tokens": 20, "return_token_ids": True}
    response = rollouts.post(path, **request)
    for change in (
        lambda r: r["choices"][0]["token_ids"].__setitem__(3, 7),
        lambda r: r.get("prompt_token_ids", r["choices"][0].get("prompt_token_ids")).__setitem__(1, 7),
    ):
        forged = copy.deepcopy(response)
        change(forged)
        assert rollouts.report(forged, **request)["verdict"] == "rejected"
        assert transformers.verify(json.dumps({"request": request, "response": forged})).verdict == "rejected"


def test_tokens_that_nobody_sees_have_no_field(rollouts: Api) -> None:
    body = {"query": "one, two, ", "items": ["three", "four"], "label_token_ids": [300, 301]}
    response = rollouts.http.post("/generative_scoring", json={"model": "toploc-mini", **body})
    assert response.status_code == 200, response.text
    assert FIELD_NAME not in response.json()


def described(api: Api) -> Json:
    weights: Json = api.http.get("/v1/toploc").json()["weights"]
    return weights


def reload(api: Api, weights: Path) -> None:
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
    assert api.http.post("/collective_rpc", json=body).status_code == 200


def transfer(api: Api, weights: Path, *, patched: bool = False) -> None:
    """As a trainer does (vllm/entrypoints/rl/online/api_router.py)."""
    info = {"folder": str(weights), "patched": patched}
    for path, body in {
        "/start_weight_update": None,
        "/update_weights": {"update_info": info},
        "/finish_weight_update": None,
    }.items():
        reply = api.http.post(path, json=body)
        assert reply.status_code == 200, reply.text


def reloaded_within(
    api: Api, path: str, request: Json, weights: Path, begun: int, replace: Callable[[Api, Path], None]
) -> list[Json]:
    """The events of a stream in the middle of which the weights are replaced, after `begun` events."""
    events: list[Json] = []

    def ask() -> None:
        with api.http.stream("POST", path, json={"model": "toploc-mini", **request}) as reply:
            events.extend(json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {"))

    thread = threading.Thread(target=ask)
    thread.start()
    while len(events) < begun and thread.is_alive():
        time.sleep(0.001)
    assert api.http.post("/pause", params={"mode": "keep"}).status_code == 200
    replace(api, weights)
    assert api.http.post("/resume").status_code == 200
    thread.join()
    return events


def straddling(
    api: Api, path: str, request: Json, weights: Path, replace: Callable[[Api, Path], None] = reload
) -> tuple[Json, list[Json]]:
    """The response of a stream that the first weights began and others ended, and its spans; tried until the change
    comes after the first chunk and before the end."""
    for begun in (40, 80, 20, 160, 5):
        reload(api, MODEL)
        assert api.http.post("/reset_prefix_cache").status_code == 200
        events = reloaded_within(api, path, request, weights, begun, replace)
        assembly, field = Assembly(), None
        for event in events:
            field = event.pop(FIELD_NAME, field)
            assembly.add(event)
        assert field is not None
        response = {**(assembly.response() or {}), FIELD_NAME: field}
        spans = ToplocProofs.model_validate(field).choices[0].weights
        if spans is not None and len(spans) > 1 and spans[0].end >= CHUNK_SIZE:
            return response, [span.model_dump() for span in spans]
    raise AssertionError("the weights were never replaced in the middle")


def judged_by(weights: Path, request: Json, response: Json) -> Report:
    verifier = TransformersVerifier(weights, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))
    return verifier.verify(json.dumps({"request": {"model": "toploc-mini", **request}, "response": response}))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alter.make("int4", MODEL, tmp_path_factory.mktemp("weights") / "int4")


def test_two_weights_in_one_answer(rollouts: Api, other: Path, signing: tuple[Path, PublicKey]) -> None:
    """It says so, with the tokens of each; nobody accuses its server, and nobody accepts it."""
    before = described(rollouts)
    assert (before["version"], before["sha256"]) == (0, weights_digest(MODEL))
    request = {**STORY, "max_tokens": 1900, "logprobs": True, "stream": True}
    response, spans = straddling(rollouts, CHAT, request, other)
    n = len(response[FIELD_NAME]["choices"][0]["token_ids"])
    assert (spans[0]["start"], spans[-1]["end"]) == (0, n)
    after = described(rollouts)
    assert after["version"] >= 1
    assert "sha256" not in after
    report = rollouts.report(response, **request)
    assert (report["verdict"], reasons(report)["proofs"]) == ("undecided", "weights_changed"), report
    assert "tokens" not in reasons(report)
    assert reasons(report)["response"] == "not_bound"
    for weights in (MODEL, other):
        found = judged_by(weights, request, response)
        [check] = [check for check in found.checks if check.name == "proofs"]
        assert (found.verdict, check.reason) == ("undecided", "weights_changed"), str(found)
        agreeing = [chunk["passed"] for chunk in check.figures["chunks"]]
        assert len(agreeing) == spans[0]["end"] // CHUNK_SIZE > 0
        assert all(agreeing) is (weights == MODEL)
    # What the weights have nothing to do with still rejects.
    forged = copy.deepcopy(response)
    forged["choices"][0]["message"]["content"] += "x"
    assert rollouts.report(forged, **request)["verdict"] == "rejected"
    # The receipt covers the spans, and names no weights of which no digest is known.
    keys = load_trusted_keys(str(signing[0]))
    [result] = verify_receipt({"model": "toploc-mini", **request}, response, keys)
    assert (result.status, result.statement.weights_sha256) == ("passed", None)
    forged = copy.deepcopy(response)
    forged[FIELD_NAME]["choices"][0]["weights"][0].update(version=0)
    forged[FIELD_NAME]["choices"][0]["weights"][-1].update(version=99)
    [result] = verify_receipt({"model": "toploc-mini", **request}, forged, keys)
    assert result.reason == "proofs_differ"


def test_two_weights_in_an_answer_of_tokens(rollouts: Api, other: Path) -> None:
    sampling = {"temperature": 0, "max_tokens": 1900, "ignore_eos": True}
    request = {"token_ids": IDS, "sampling_params": sampling, "stream": True}
    response, spans = straddling(rollouts, GENERATE, request, other)
    for found in (judged_by(MODEL, request, response), judged_by(other, request, response)):
        assert found.verdict == "undecided", str(found)
    report = rollouts.report(response, **request)
    assert (report["verdict"], reasons(report)["proofs"]) == ("undecided", "weights_changed"), report
    response["choices"][0]["token_ids"][spans[-1]["start"]] += 1
    assert rollouts.report(response, **request)["verdict"] == "rejected"


def test_answers_after_a_change_are_of_one_version(rollouts: Api, other: Path) -> None:
    """And verified as ever, by who holds those weights."""
    assert rollouts.http.post("/sleep", params={"level": 1}).status_code == 200
    reload(rollouts, other)
    assert rollouts.http.post("/wake_up").status_code == 200
    version = described(rollouts)["version"]
    request = {**STORY, "max_tokens": 70}
    response = rollouts.post(CHAT, **request)
    [span] = response[FIELD_NAME]["choices"][0]["weights"]
    assert (span["start"], span["end"]) == (0, 70)
    assert span["version"] > version - 1
    assert rollouts.report(response, **request)["verdict"] == "accepted"
    assert judged_by(other, request, response).verdict == "accepted"
    assert judged_by(MODEL, request, response).verdict == "rejected"
    # A claim of two spans is no way from rejected to accepted.
    forged = copy.deepcopy(response)
    del forged[FIELD_NAME]["choices"][0]["receipt"]
    forged[FIELD_NAME]["choices"][0]["weights"] = [
        {"version": 0, "start": 0, "end": 32},
        {"version": 1, "start": 32, "end": 70},
    ]
    for weights in (MODEL, other):
        assert judged_by(weights, request, forged).verdict == "undecided"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with other norms."""
    folder = tmp_path_factory.mktemp("weights") / "scaled"
    shutil.copytree(MODEL, folder)
    torch.manual_seed(0)
    tensors = load_file(folder / "model.safetensors")
    changed = {name: each * (0.7 + 0.6 * torch.rand(each.shape)).to(each.dtype) for name, each in tensors.items()}
    mixed = {name: changed[name] if "norm" in name else each for name, each in tensors.items()}
    save_file(mixed, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("patched", [False, True], ids=["whole", "patched"])
def test_weights_that_a_trainer_sends(rollouts: Api, scaled: Path, patched: bool) -> None:
    """Loaded by the model's own loader, or written where they are."""
    send = partial(transfer, patched=patched)
    request = {**STORY, "max_tokens": 1900}
    response, spans = straddling(rollouts, CHAT, {**request, "stream": True}, scaled, send)
    assert len(spans) == 2
    for weights in (MODEL, scaled):
        found = judged_by(weights, {**request, "stream": True}, response)
        assert found.verdict == "undecided", str(found)
    assert rollouts.http.post("/reset_prefix_cache").status_code == 200
    request = {**STORY, "max_tokens": 70}
    response = rollouts.post(CHAT, **request)
    [span] = response[FIELD_NAME]["choices"][0]["weights"]
    assert (span["start"], span["end"], span["version"]) == (0, 70, spans[-1]["version"])
    assert rollouts.report(response, **request)["verdict"] == "accepted"
    assert judged_by(scaled, request, response).verdict == "accepted"
    assert judged_by(MODEL, request, response).verdict == "rejected"
