"""`POST /v1/toploc/verify` on the running engine: the bundled model's recorded answers, and what the route refuses."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models import corpus
from toploc.errors import ToplocError
from toploc.proofs.field import PRIME
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.command import main as verify_command
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc.verifier.prefill import TransformersPrefill

ALTERED = {f"{kind}-{how}" for kind in ("finetuned", "int4") for how in ("greedy", "sampled")} | {"other-system"}
EVIDENCE = Path(__file__).parents[1] / "toploc" / "evidence"
PATH = "/v1/toploc/verify"


def evidence(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVIDENCE / f"{name}.json").read_text("utf-8"))
    return found


def names() -> list[str]:
    return sorted(path.stem for path in EVIDENCE.glob("*.json"))


@pytest.fixture(scope="module")
def http(api: Any) -> httpx.Client:
    client: httpx.Client = api.http
    return client


@pytest.fixture(scope="module")
def reference(prefill: TransformersPrefill) -> TransformersVerifier:
    return TransformersVerifier(
        prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"), context_length=2048
    )


def test_both_backends_come_to_the_same_verdicts(http: httpx.Client, reference: TransformersVerifier) -> None:
    items = {name: evidence(name) for name in names() if name != "no-proofs"}
    response = http.post(PATH, json={"items": list(items.values())})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(len(items)))
    reports = {list(items)[line["index"]]: line["report"] for line in lines}
    expected = {name: reference.verify(json.dumps(item)).model_dump() for name, item in items.items()}
    for name, found in reports.items():
        if name == "tool-call":  # an engine alone can tell what stands in it
            assert (found["verdict"], expected[name]["verdict"]) == ("accepted", "undecided")
            continue
        assert found["verdict"] == expected[name]["verdict"], (name, found)
        if name == "structured":  # and follow a grammar
            assert ("tokens", 0, "passed", None) in outcomes(found)
            assert ("tokens", 0, "skipped", "options") in outcomes(expected[name])
            continue
        assert outcomes(found) == outcomes(expected[name]), name
    assert {name for name in reports if reports[name]["verdict"] == "rejected"} == ALTERED
    worst = differences(reports, expected)
    for figure, most in MOST.items():
        assert worst[figure] <= most, (figure, worst)


def outcomes(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Of the checks that both backends make: the one has rehearsed text and end in the response."""
    checks = [check for check in report["checks"] if check["name"] not in ("text", "finish")]
    return [(check["name"], check["choice"], check["status"], check["reason"]) for check in checks]


# How far two backends may differ on an honest answer: as far as either may lie from the proof, on any processor.
# docs/verify.md has how far they do.
MOST = {"mismatches": 8, "mantissa_mean": 1.5, "mantissa_median": 1, "worst": 0.125, "z": 0.25}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The largest between two backends' figures of the same honest answers: of chunks, greedy margins, and z."""
    found: dict[str, float] = dict.fromkeys(MOST, 0.0)
    for name in one.keys() - ALTERED:
        twins_of = {(check["name"], check["choice"]): check for check in other[name]["checks"]}
        for check in one[name]["checks"]:
            if (name, check["name"]) == ("structured", "tokens"):
                continue  # an engine alone follows grammars
            twin = twins_of[check["name"], check["choice"]]
            pairs = [(check["figures"], twin["figures"])]
            if check["name"] == "proofs":
                pairs = list(zip(check["figures"].get("chunks", []), twin["figures"].get("chunks", []), strict=True))
            for figures, twins in pairs:
                for figure in MOST.keys() & figures.keys():
                    found[figure] = max(found[figure], abs(figures[figure] - twins[figure]))
    return found


def choice(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = item["response"]["toploc_proofs"]["choices"][index]
    return found


def forged(change: Callable[[dict[str, Any]], object], name: str = "greedy") -> dict[str, Any]:
    item = evidence(name)
    change(item)
    return item


def proofs(change: Callable[[list[str]], list[str]]) -> Callable[[dict[str, Any]], None]:
    return lambda item: choice(item).update(proofs=change(choice(item)["proofs"]))


def encoded(modulus: int, *coefficients: int) -> str:
    return base64.b64encode(np.array([modulus, *coefficients, *[0] * (128 - len(coefficients))], ">u2")).decode()


def swap_choices(item: dict[str, Any]) -> None:
    one, two = item["response"]["choices"]
    one["message"], two["message"] = two["message"], one["message"]


def swap_prompt(item: dict[str, Any]) -> None:
    """An answer as one to another question, whose digest it claims."""
    other = evidence("sampled")
    item["request"]["messages"] = other["request"]["messages"]
    item["response"]["toploc_proofs"]["prompt"] = other["response"]["toploc_proofs"]["prompt"]


def swap_proofs(item: dict[str, Any]) -> None:
    one, two = choice(item), choice(item, 1)
    one["proofs"], two["proofs"] = two["proofs"], one["proofs"]


def junk_for(**refused: Any) -> Callable[[dict[str, Any]], None]:
    """Junk for proofs, in the answer to a request that the engine refuses."""

    def change(item: dict[str, Any]) -> None:
        item["request"] |= refused
        choice(item).update(token_ids=[1], proofs=["x"])

    return change


FORGERIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "junk for a request with no tools": (forged(junk_for(tools=[])), "rejected", "malformed_proof.length"),
    "junk for a choice of no tools": (forged(junk_for(tool_choice="auto")), "rejected", "malformed_proof.length"),
    "constant polynomial": (
        forged(proofs(lambda made: [encoded(PRIME, 0x4100)] * len(made))),
        "rejected",
        "activations",
    ),
    "tiny modulus": (
        forged(proofs(lambda made: [encoded(16, 0x4100)] * len(made))),
        "rejected",
        "malformed_proof.modulus",
    ),
    "other encoding": (
        forged(proofs(lambda made: [encoded(PRIME, PRIME + 1), *made[1:]])),
        "rejected",
        "malformed_proof.coefficient",
    ),
    "unpadded base64": (forged(proofs(lambda made: [made[0] + "=", *made[1:]])), "rejected", "malformed_proof.length"),
    "one proof less": (forged(proofs(lambda made: made[:-1])), "rejected", "malformed_proof.count"),
    "one proof more": (forged(proofs(lambda made: [*made, made[0]])), "rejected", "malformed_proof.count"),
    "reversed": (forged(proofs(lambda made: made[::-1])), "rejected", "activations"),
    "replayed": (
        forged(proofs(lambda made: choice(evidence("sampled"))["proofs"][: len(made)])),
        "rejected",
        "activations",
    ),
    "replayed last chunk": (
        forged(proofs(lambda made: [*made[:-1], choice(evidence("greedy-short"))["proofs"][-1]])),
        "rejected",
        "activations",
    ),
    "one proof for all chunks": (forged(proofs(lambda made: made[:1] * len(made))), "rejected", "activations"),
    "a modulus beyond the field's": (
        forged(proofs(lambda made: [encoded(PRIME + 1, 1), *made[1:]])),
        "rejected",
        "malformed_proof.modulus",
    ),
    "bytes behind the proof": (
        forged(proofs(lambda made: [base64.b64encode(base64.b64decode(made[0]) + b"\0\0").decode(), *made[1:]])),
        "rejected",
        "malformed_proof.length",
    ),
    "another alphabet of base64": (
        forged(proofs(lambda made: [made[0].translate(str.maketrans("+/", "-_")), *made[1:]])),
        "rejected",
        "malformed_proof.base64",
    ),
    "proofs of another prompt": (forged(swap_prompt), "rejected", "activations"),
    "another token": (
        forged(lambda item: choice(item)["token_ids"].__setitem__(40, choice(item)["token_ids"][40] + 1)),
        "rejected",
        "activations",
    ),
    "another prompt": (
        forged(lambda item: item["request"]["messages"].append({"role": "user", "content": "And to 50?"})),
        "rejected",
        "prompt_length",
    ),
    "another text": (
        forged(lambda item: item["response"]["choices"][0]["message"].update(content="1, 3, 2")),
        "rejected",
        "response_differs",
    ),
    "swapped choices": (forged(swap_choices, "two-choices"), "rejected", "response_differs"),
    "swapped proofs": (forged(swap_proofs, "two-choices"), "rejected", "activations"),
    "honest states of text that greedy decoding would not say": (
        forged(lambda item: item["request"].update(temperature=0), "sampled"),
        "rejected",
        "margin",
    ),
    "text more surprising than its temperature": (
        forged(lambda item: item["request"].update(temperature=0.1), "sampled"),
        "rejected",
        "surprisal",
    ),
    "beyond the vocabulary": (
        forged(lambda item: choice(item)["token_ids"].__setitem__(3, 2**32 - 1)),
        "undecided",
        "token_id",
    ),
    "beyond the context": (
        forged(lambda item: item["request"].update(messages=[{"role": "user", "content": "one two " * 2000}])),
        "undecided",
        "unrenderable",
    ),
    "no such model": (forged(lambda item: item["request"].update(model="gpt-5")), "rejected", "model_differs"),
}


def test_every_forgery_is_found_as_the_other_backend_finds_it(
    http: httpx.Client, reference: TransformersVerifier
) -> None:
    response = http.post(PATH, json={"items": [item for item, _, _ in FORGERIES.values()]})
    lines = sorted((json.loads(line) for line in response.text.splitlines()), key=lambda line: line["index"])
    for line, (name, (item, verdict, reason)) in zip(lines, FORGERIES.items(), strict=True):
        report = line["report"]
        assert report["verdict"] == verdict, (name, report)
        assert reason in {check["reason"] for check in report["checks"]}, (name, report)
        assert reference.verify(json.dumps(item)).verdict == verdict, name


MALFORMED: dict[str, tuple[bytes, str | None]] = {
    "not json": (b"{", None),
    "a list": (b"[]", None),
    "nothing": (b"", None),
    "key twice": (b'{"request":{},"request":{},"response":{}}', None),
    "nan": (b'{"request":{"a":NaN},"response":{}}', None),
    "infinity": (b'{"request":{"a":[1,1e999]},"response":{}}', "request.a[1]"),
    "a number of many digits": (b'{"request":{"a":' + b"9" * 100_000 + b'},"response":{}}', None),
    "nested": (b'{"request":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    "nested a little": (b'{"request":{"a":' + b"[" * 70 + b"]" * 70 + b"}}", "request.a" + "[0]" * 30 + "…"),
    "a million lists": (b'{"request":{"a":[' + b"[]," * 1_000_000 + b'1]},"response":{}}', "request"),
    "thresholds of its own": (b'{"request":{},"response":{},"thresholds":{"mismatches":128}}', "thresholds"),
    "thresholds that are no number": (b'{"request":{},"response":{},"thresholds":{"mismatches":NaN}}', None),
    "no response": (b'{"request":{"messages":[{}]}}', "response"),
    "unknown key": (b'{"request":{},"response":{},"weights":1}', "weights"),
    "no items": (b'{"items":[]}', "items"),
    "items beside": (b'{"items":[{}],"request":{}}', "request"),
}


def of(change: Callable[[dict[str, Any]], object], name: str = "greedy-short") -> bytes:
    return json.dumps(forged(change, name)).encode()


CHOICES = "response.toploc_proofs.choices"
MALFORMED |= {
    "token id of text": (of(lambda e: choice(e).update(token_ids=["5"])), f"{CHOICES}[0].token_ids[0]"),
    "huge token id": (of(lambda e: choice(e).update(token_ids=[2**32])), f"{CHOICES}[0].token_ids[0]"),
    "negative token id": (of(lambda e: choice(e).update(token_ids=[-1])), f"{CHOICES}[0].token_ids[0]"),
    "no tokens": (of(lambda e: choice(e).update(token_ids=[], proofs=[])), f"{CHOICES}[0].token_ids"),
    "proof of a number": (of(lambda e: choice(e).update(proofs=[5])), f"{CHOICES}[0].proofs[0]"),
    "choice twice": (of(lambda e: choice(e, 1).update(index=0), "two-choices"), CHOICES),
    "choices of another number": (of(lambda e: e["request"].update(n=3), "two-choices"), "response.choices"),
    "thousands of choices": (
        of(lambda e: e["response"].update(choices=[e["response"]["choices"][0]] * 2000)),
        "response.choices",
    ),
    "wrong object": (of(lambda e: e["response"].update(object="text_completion")), "response.object"),
    "wrong version": (of(lambda e: e["response"]["toploc_proofs"].update(version=2)), "response.toploc_proofs.version"),
    "temperature of text": (of(lambda e: e["request"].update(temperature="warm")), "request.temperature"),
    "hot": (of(lambda e: e["request"].update(temperature=-1)), "request.temperature"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_evidence_is_a_400_that_names_the_field(http: httpx.Client, name: str) -> None:
    body, param = MALFORMED[name]
    response = http.post(PATH, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, "malformed_evidence")
    assert len(error["message"]) < 400


CONFORMANCE = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def operation(http: httpx.Client) -> Any:
    return schemathesis.openapi.from_dict(http.get("/openapi.json").json())[PATH]["POST"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_route_does_what_its_openapi_document_says(http: httpx.Client, operation: Any, mode: Any) -> None:
    """Bodies that fit the document and bodies that do not: no error but those that it lists, as it describes them."""
    statuses = set()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        response = case.call_and_validate(base_url=str(http.base_url), checks=CONFORMANCE)
        statuses.add(response.status_code)

    run()
    assert statuses <= {200, 400, 413}
    assert 400 in statuses


QUESTION = "What is 17 + 25?"
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "response": ("/v1/responses", {"input": QUESTION, "instructions": "Answer briefly.", "temperature": 0}),
    "response cut short": ("/v1/responses", {"input": "Tell me a story.", "max_output_tokens": 33, "temperature": 1}),
    "message": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": QUESTION}], "system": "Answer briefly.", "max_tokens": 50},
    ),
    "message that stops": (
        "/v1/messages",
        {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": 200,
            "stop_sequences": ["wind w"],
            "temperature": 0,
        },
    ),
    "tool call of a message": (
        "/v1/messages",
        {
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 200,
            "temperature": 0,
            "tools": [
                {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
                for f in (tool["function"] for tool in corpus.TOOLS.values())
            ],
        },
    ),
}


@pytest.mark.parametrize("name", ROUTES)
def test_responses_and_messages(api: Any, reference: TransformersVerifier, name: str) -> None:
    path, body = ROUTES[name]
    item = {"request": {"model": "toploc-mini", **body}, "response": api.post(path, **body)}
    response = api.http.post(PATH, json=item)
    report = response.json()
    assert report["verdict"] == "accepted", str(report)
    found = reference.verify(json.dumps(item))
    assert (found.verdict, {c.reason for c in found.checks if c.name == "response"}) == ("undecided", {"unrehearsed"})
    item["response"]["model"] = "another"
    assert api.http.post(PATH, json=item).json()["verdict"] == "rejected"


def test_a_conversation_with_tool_results_is_rendered_by_its_own_route(api: Any) -> None:
    """Another engine cannot know how the server's route puts these items together."""
    tools = [{"type": "function", **tool["function"]} for tool in corpus.TOOLS.values()]
    body: dict[str, Any] = {"input": [{"role": "user", "content": QUESTION}], "tools": tools, "temperature": 0}
    first = api.post("/v1/responses", **body)
    [call] = first["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}
    body["input"] = [*body["input"], call, result]
    item = {"request": {"model": "toploc-mini", **body}, "response": api.post("/v1/responses", **body)}
    assert api.http.post(PATH, json=item).json()["verdict"] == "accepted"


def test_malformed_items_do_not_stop_the_others(http: httpx.Client) -> None:
    items = [{"request": 5}, evidence("greedy-short"), evidence("no-proofs")]
    lines = [json.loads(line) for line in http.post(PATH, json={"items": items}).text.splitlines()]
    found = {line["index"]: line for line in lines}
    assert found[1]["report"]["verdict"] == "accepted"
    assert [found[i]["error"]["param"] for i in (0, 2)] == ["request", "response.toploc_proofs"]
    lines = [json.loads(line) for line in http.post(PATH, json={"items": [{}] * 1000}).text.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(1000))
    response = http.post(PATH, json={"items": [{}] * 1001})
    assert (response.status_code, response.json()["error"]["param"]) == (413, "items")


def test_chat_answers_while_a_hundred_verifications_run(http: httpx.Client, api: Any) -> None:
    before = api.metric("toploc:verifications_total")
    item = json.dumps({"items": [evidence("greedy")] * 100})
    answered = 0
    with http.stream("POST", PATH, content=item, headers={"content-type": "application/json"}) as stream:
        lines = stream.iter_lines()
        verdicts = [json.loads(next(lines))["report"]["verdict"]]
        while api.metric("toploc:verifications_total") - before < 100 and answered < 3:
            chat = api.chat([{"role": "user", "content": "What is 17 + 25?"}], temperature=0)
            assert "42" in chat["choices"][0]["message"]["content"]
            answered += 1
            # One request has at most half of the 64 places; the rest is others'.
            assert api.metric("toploc:verifications_running") <= 32
        assert answered, "all verifications were over before the first chat"
        verdicts += [json.loads(line)["report"]["verdict"] for line in lines]
    assert verdicts == ["accepted"] * 100
    assert api.metric("toploc:verifications_total") - before == 100
    assert api.metric("toploc:verifications_running") == 0


def test_beside_an_answer_few_verifications_are_in_the_engine(http: httpx.Client, api: Any) -> None:
    item = evidence("greedy")
    proofs = item["response"]["toploc_proofs"]
    size = proofs["prompt"]["num_tokens"] + len(proofs["choices"][0]["token_ids"])
    long = {"model": "toploc-mini", "prompt": "Count.", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with http.stream("POST", "/v1/completions", json=long) as answer, ThreadPoolExecutor(1) as pool:
        events = answer.iter_lines()  # let go of, it ends the answer
        assert next(events).startswith("data: {"), answer.status_code
        reply = pool.submit(http.post, PATH, json={"items": [item] * 12})
        running: list[float] = []
        while not reply.done():
            running.append(api.metric("toploc:verifications_running"))
    verdicts = [json.loads(line)["report"]["verdict"] for line in reply.result().text.splitlines()]
    assert verdicts == ["accepted"] * 12
    # The limit is 1,024 tokens, and there would be places for all.
    assert 1 <= max(running) <= 1024 // size


@pytest.fixture(scope="module")
def own(verifier: Any) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer s3cret"}
    with httpx.Client(base_url=verifier.url, headers=headers, timeout=120) as client:
        yield client


def test_a_verifier_describes_itself_and_generates_nothing(own: httpx.Client) -> None:
    described = own.get("/v1/toploc").json()
    assert described["role"] == "verifier"
    assert described["models"] == ["toploc-mini"]
    assert described["thresholds"]["name"] == "paper-bfloat16"
    assert (described["limits"]["verify_tokens"], described["limits"]["verify_concurrency"]) == (300, 2)
    chat = {"model": "toploc-mini", "messages": [{"role": "user", "content": "Hi"}]}
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/inference/v1/generate"):
        response = own.post(path, json=chat)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "verifier_only"), path
    assert own.get("/v1/models").status_code == 200
    assert 'enable_prefix_caching="False"' in own.get("/metrics").text
    report = own.post(PATH, json=evidence("greedy")).json()
    assert report["verdict"] == "accepted"
    [check] = [check for check in report["checks"] if check["name"] == "proofs"]
    assert check["thresholds"]["name"] == "paper-bfloat16"


def test_the_route_is_behind_the_api_key(verifier: Any) -> None:
    assert httpx.post(verifier.url + PATH, json=evidence("greedy")).status_code == 401
    assert httpx.get(verifier.url + "/v1/toploc").status_code == 401


def test_the_command_asks_a_server(
    verifier: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEY", "s3cret")
    asked = ["--verifier", f"{verifier.url}/v1", "--api-key-env", "KEY"]
    assert verify_command([str(EVIDENCE / "greedy.json"), *asked]) == 0
    assert "ACCEPTED  toploc-mini" in capsys.readouterr().out
    assert verify_command([str(EVIDENCE / "other-system.json"), *asked]) == 1
    assert verify_command([str(EVIDENCE / "no-proofs.json"), *asked]) == 2
    with pytest.raises(ToplocError, match="HTTP 401"):
        verify_command([str(EVIDENCE / "greedy.json"), *asked[:2]])


def test_sizes_beyond_the_limits(own: httpx.Client) -> None:
    response = own.post(PATH, content=b" " * 200_001)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    chunks = (b" " * 100_000 for _ in range(3))
    assert own.post(PATH, content=chunks).status_code == 413
    response = own.post(PATH, json=forged(lambda item: choice(item).update(token_ids=[7] * 400)))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (413, "response.toploc_proofs.choices[0]")


@pytest.mark.parametrize("tokens", [200, 200_000])
def test_a_claimed_prompt_of_any_length_is_held_against_the_requests(own: httpx.Client, tokens: int) -> None:
    """What a provider claims must not keep the verifier from looking."""
    response = own.post(
        PATH, json=forged(lambda item: item["response"]["toploc_proofs"]["prompt"].update(num_tokens=tokens))
    )
    report = response.json()
    assert report["verdict"] == "rejected", report
    assert "prompt_length" in [check["reason"] for check in report["checks"]]


def test_no_more_is_in_the_engine_than_the_limit_of_tokens(own: httpx.Client) -> None:
    """Two of these have more than 300 tokens; there are places for two."""
    body = json.dumps({"items": [evidence("greedy")] * 15})
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(own.post, PATH, content=body) for _ in range(2)]
        running: list[dict[str, float]] = []
        while not all(reply.done() for reply in replies):
            metrics = own.get("/metrics").text
            found = re.findall(r"^(toploc:verifications|vllm:num_requests)_running\S* (\S+)$", metrics, re.MULTILINE)
            running.append({name: float(value) for name, value in found})
    assert all(len(sample) == 2 for sample in running)
    assert max(sample["toploc:verifications"] for sample in running) == 1
    assert max(sample["vllm:num_requests"] for sample in running) <= 1
    lines = [json.loads(line) for reply in replies for line in reply.result().text.splitlines()]
    assert [line["report"]["verdict"] for line in lines] == ["accepted"] * 30


def test_places_are_limited_and_given_back_when_clients_go(own: httpx.Client, verifier: Any) -> None:
    head = b"POST /v1/toploc/verify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer s3cret\r\ncontent-length: 9\r\n\r\n{"

    def held() -> bool:
        return "toploc:verify_requests 2.0" in own.get("/metrics").text

    for _ in range(2):
        sockets = [socket.create_connection(("127.0.0.1", verifier.port)) for _ in range(2)]
        for one in sockets:
            one.sendall(head)
        wait_for(held)
        refused = own.post(PATH, json=evidence("greedy-short"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_verifications")
        assert refused.headers["retry-after"] == "1"
        for one in sockets:
            one.close()
        wait_for(lambda: not held())
        assert own.post(PATH, json=evidence("greedy-short")).status_code == 200


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")
