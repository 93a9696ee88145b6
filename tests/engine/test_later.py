"""Answers that come later, or another way: fetched responses, proofs by response id, Cohere's route, and SDKs that keep
the last value of a field that they do not know."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import toploc_client
from options import SERVE

from toploc.receipts.keys import load_signing_keys
from toploc.receipts.receipt import verify_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs
    from toploc.receipts.keys import PublicKey

NAME = "toploc-mini"
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
LONG: dict[str, Any] = {"input": STORY, "temperature": 0, "max_output_tokens": 400, "ignore_eos": True}
REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "models" / "toploc-mini"
NODE = REPOSITORY / "build" / "node"


@pytest.fixture(scope="module")
def keeping(
    launch: Callable[..., LocalServer], signing: tuple[Path, PublicKey], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServer]:
    """A server that keeps responses and proofs, signs, and fails answers without proofs."""
    store = str(tmp_path_factory.mktemp("kept") / "proofs.db")
    options = ["--toploc-signing-key", str(signing[0]), "--toploc-proofs", store, "--toploc-on-error", "fail"]
    with launch(*options, VLLM_ENABLE_RESPONSES_API_STORE="1", VLLM_ENABLE_COHERE_API="1") as server:
        yield server


@pytest.fixture(scope="module")
def kept(keeping: LocalServer, api_of: type[Api]) -> Iterator[Api]:
    with api_of(keeping.url) as api:
        yield api


@pytest.fixture
def key(signing: tuple[Path, PublicKey]) -> PublicKey:
    return load_signing_keys([str(signing[0])])[1][0]


def fetched(api: Api, name: str) -> dict[str, Any]:
    """The response, once it is made."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = api.http.get(f"/v1/responses/{name}")
        assert found.status_code == 200, found.text
        response = found.json()
        if response["status"] not in ("queued", "in_progress"):
            return response
        assert "toploc_proofs" not in response
        time.sleep(0.1)
    raise AssertionError("the response was not made")


# Responses in the background


def test_a_background_response_has_its_proofs_when_it_is_fetched(
    kept: Api, key: PublicKey, verified: Callable[..., ToplocProofs]
) -> None:
    kept.chat(SUM, max_tokens=1)
    before = kept.metric("toploc:answers_total")
    request = {"background": True, **LONG}
    begun = kept.post("/v1/responses", **request)
    assert begun["status"] in ("queued", "in_progress")
    assert "toploc_proofs" not in begun
    response = fetched(kept, begun["id"])
    assert len(verified(response["toploc_proofs"], STORY).choices[0].token_ids) == 400
    body = {"model": NAME, **request}
    assert [result.reason for result in verify_receipt(body, response, [key])] == [None]
    assert kept.report(response, **request)["verdict"] == "accepted"
    assert fetched(kept, begun["id"]) == response
    listed = kept.http.get(f"/v1/toploc/proofs/{begun['id']}").json()
    assert listed == {"id": begun["id"], "toploc_proofs": response["toploc_proofs"]}
    assert kept.metric("toploc:answers_total") - before == 1


def test_a_background_stream_that_is_left_and_resumed(kept: Api, verified: Callable[..., ToplocProofs]) -> None:
    body = {"model": NAME, "background": True, "stream": True, "input": SUM, "temperature": 0}
    with kept.http.stream("POST", "/v1/responses", json=body) as reply:
        first = next(line for line in reply.iter_lines() if line.startswith("data: "))
    name = json.loads(first.removeprefix("data: "))["response"]["id"]
    response = fetched(kept, name)
    text = kept.http.get(f"/v1/responses/{name}", params={"stream": "true", "starting_after": 5}).text
    events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    assert events[0]["sequence_number"] == 6
    assert events[-1]["response"]["toploc_proofs"] == response["toploc_proofs"]
    verified(response["toploc_proofs"], SUM)


def test_a_stored_response_keeps_the_proofs_of_its_reply(kept: Api) -> None:
    response = kept.post("/v1/responses", input=SUM, temperature=0)
    assert fetched(kept, response["id"])["toploc_proofs"] == response["toploc_proofs"]


def test_one_that_is_cancelled_has_none_and_fails_nothing(kept: Api) -> None:
    name = kept.post("/v1/responses", background=True, **LONG | {"max_output_tokens": 1800})["id"]
    cancelled = kept.http.post(f"/v1/responses/{name}/cancel")
    assert cancelled.status_code == 200, cancelled.text
    response = fetched(kept, name)
    assert response["status"] == "cancelled"
    assert "toploc_proofs" not in response


def test_the_client_checks_what_it_fetches(keeping: LocalServer, key: PublicKey) -> None:
    """Whole or resumed, against the request that it keeps."""
    with toploc_client.OpenAI(
        base_url=f"{keeping.url}/v1", api_key="none", verifier=keeping.url, trusted_keys=[key]
    ) as client:
        options: dict[str, Any] = {"model": NAME, "background": True, "temperature": 0}
        name = client.responses.create(input=SUM, **options).id
        while (response := client.responses.retrieve(name)).status in ("queued", "in_progress"):
            time.sleep(0.1)
        assert "42" in response.output_text
        assert client.checks.accepted == 1
        with client.responses.create(input=STORY, stream=True, **options) as stream:
            name = next(event.response.id for event in stream if event.type == "response.created")
        while client.responses.retrieve(name).status in ("queued", "in_progress"):
            time.sleep(0.1)
        assert client.checks.accepted == 2
        resumed = client.responses.retrieve(name, stream=True, starting_after=7)
        first, *_ = [event.sequence_number for event in resumed]
        assert first == 8
        assert resumed.toploc_proofs.choices[0].receipt
        assert client.checks.accepted == 3


# Proofs by response id


ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SUM, "n": 2, "temperature": 1},
    "/v1/completions": {"prompt": ["one, two", "January"], "max_tokens": 40},
    "/v1/responses": {"input": SUM},
    "/v1/messages": {"messages": SUM, "max_tokens": 40},
    "/v1/chat/completions/batch": {"messages": [SUM, STORY], "max_tokens": 40},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ROUTES)
def test_proofs_are_kept_for_who_lost_them(kept: Api, path: str, stream: bool) -> None:
    """As they were delivered, receipts and all, under the id that the application was given."""
    if stream and path.endswith("batch"):
        return  # vLLM streams none
    if stream:
        events = kept.stream(path, **ROUTES[path])
        first = events[0].get("message") or events[0].get("response") or events[0]
        name = first["id"]
        fields = [event.get("response", event).get("toploc_proofs") for event in events]
        field = [found for found in fields if found][-1]
    else:
        response = kept.post(path, **ROUTES[path])
        name, field = response["id"], response["toploc_proofs"]
    found = kept.http.get(f"/v1/toploc/proofs/{name}")
    assert found.status_code == 200, (name, found.text)
    assert found.json()["toploc_proofs"] == field
    assert all(choice["receipt"] for choice in field["choices"])


def test_no_proofs_of_an_id_that_can_be_guessed(kept: Api) -> None:
    reply = kept.http.post("/v1/chat/completions", json={"model": NAME, "messages": SUM}, headers={"x-request-id": "1"})
    assert reply.json()["id"] == "chatcmpl-1"
    found = kept.http.get("/v1/toploc/proofs/chatcmpl-1")
    assert (found.status_code, found.json()["error"]["code"]) == (404, "proofs_unknown")


# SDKs that keep the last value


def snapshot(events: list[dict[str, Any]]) -> dict[str, Any]:
    """As OpenAI's SDK for JavaScript and others put a stream together, where they know nothing of a field."""
    held: dict[str, Any] = {}
    for event in events:
        held |= event
    return held


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_the_last_value_of_the_field_has_all_choices(kept: Api, n: int, verified: Callable[..., ToplocProofs]) -> None:
    body = {"messages": STORY, "n": n, "temperature": 1, "max_tokens": 50, "seed": 7}
    events = kept.stream("/v1/chat/completions", stream_options={"include_usage": True}, **body)
    proofs = verified(snapshot(events)["toploc_proofs"], STORY)
    assert [choice.index for choice in proofs.choices] == [*range(n)]
    assert all(choice.receipt for choice in proofs.choices)


JAVASCRIPT = """
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[1], apiKey: 'none' });
const stream = client.chat.completions.stream(JSON.parse(process.argv[2]));
console.log(JSON.stringify(await stream.finalChatCompletion()));
"""


def test_the_sdk_for_javascript_has_all_choices(keeping: LocalServer, kept: Api) -> None:
    """`make test-frameworks` installs what it needs."""
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("no Node.js, or no package `openai` in build/node")
    request = {"model": NAME, "messages": STORY, "n": 3, "temperature": 1, "max_tokens": 40, "seed": 3}
    command = [node, "--input-type=module", "-e", JAVASCRIPT, f"{keeping.url}/v1", json.dumps(request)]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    response = json.loads(done.stdout)
    assert [choice["index"] for choice in response["toploc_proofs"]["choices"]] == [0, 1, 2]
    report = kept.report(response, **{k: v for k, v in request.items() if k != "model"}, stream=True)
    assert report["verdict"] == "accepted", str(report)


def test_the_sdk_for_python_merges_as_before(keeping: LocalServer) -> None:
    with toploc_client.OpenAI(base_url=f"{keeping.url}/v1", api_key="none", verifier=keeping.url) as client:
        request: dict[str, Any] = {"model": NAME, "messages": SUM, "n": 3, "temperature": 1}
        with client.chat.completions.stream(**request) as stream:
            final = stream.get_final_completion() if list(stream) else None
        assert final is not None
        assert [choice.index for choice in final.toploc_proofs.choices] == [0, 1, 2]
        assert client.checks.accepted == 1


# Batch files


@pytest.mark.slow
def test_run_batch(tmp_path: Path, verified: Callable[..., ToplocProofs]) -> None:
    """A file of requests to a file of responses, through a server of its own."""
    lines = [
        ("a", "/v1/chat/completions", {"messages": SUM, "temperature": 0}),
        ("b", "/v1/completions", {"prompt": "one, two", "max_tokens": 40}),
        ("c", "/v1/chat/completions", {"messages": SUM, "stream": True}),
        ("d", "/v1/chat/completions", {"messages": "none"}),
        ("e", "/v1/nothing", {}),
    ]
    requests = [
        {"custom_id": name, "method": "POST", "url": url, "body": {"model": NAME, **body}} for name, url, body in lines
    ]
    source, target = tmp_path / "requests.jsonl", tmp_path / "responses.jsonl"
    source.write_text("\n".join(map(json.dumps, requests)) + "\n\n")
    options = ["-i", str(source), "-o", str(target), "--model", str(MODEL), "--api-key=secret", *SERVE]
    done = subprocess.run(
        [sys.executable, "-m", "toploc", "run-batch", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "5 responses, 3 of them errors" in done.stdout
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    assert [answer["custom_id"] for answer in answers] == list("abcde")
    assert [answer["response"]["status_code"] for answer in answers] == [200, 200, 400, 400, 404]
    assert [answer["error"] is None for answer in answers] == [True, True, False, False, False]
    verified(answers[0]["response"]["body"]["toploc_proofs"], SUM)
    assert answers[1]["response"]["body"]["toploc_proofs"]["choices"][0]["proofs"]


# Cohere's route

needs_cohere = pytest.mark.skipif(importlib.util.find_spec("cohere") is None, reason="vLLM needs the package `cohere`")


@needs_cohere
@pytest.mark.parametrize("stream", [False, True])
def test_cohere(kept: Api, key: PublicKey, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    body = {"messages": SUM, "temperature": 0}
    if stream:
        events = kept.stream("/cohere/v2/chat", **body)
        [last] = [event for event in events if "toploc_proofs" in event]
        assert last["type"] == "message-end"
        field = last["toploc_proofs"]
        name = events[0]["id"]
    else:
        response = kept.post("/cohere/v2/chat", **body)
        name, field = response["id"], response["toploc_proofs"]
    proofs = verified(field, SUM)
    statement = proofs.choices[0].receipt.statement
    assert (statement.response_id, statement.output_sha256) == (name, None)
    assert kept.http.get(f"/v1/toploc/proofs/{name}").json()["toploc_proofs"] == field
