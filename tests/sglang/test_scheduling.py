"""Schedulers under other options: whatever they do with a request's rows, each chunk of each answer is right."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asking import Api
from many_answers import hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc_proxy.local_server import LocalServer

pytestmark = pytest.mark.sglang_all

ASKED = [{"role": "user", "content": "Tell me a story."}]
LONG = [{"role": "user", "content": " ".join(str(number) for number in range(150))}]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--chunked-prefill-size", "64"], {}),
        (["--chunked-prefill-size", "64", "--enable-mixed-chunk"], {}),
        (["--disable-overlap-schedule"], {"SGLANG_TEST_RETRACT": "1"}),
        ([], {"SGLANG_TEST_RETRACT": "1"}),
        (["--disable-radix-cache"], {}),
    ],
    ids=["chunks", "mixed", "retraction", "overlapped retraction", "no cache"],
)
def test_schedules(
    launch: Callable[..., LocalServer],
    verified: Callable[..., Any],
    options: list[str],
    environment: dict[str, str],
) -> None:
    with launch(*options, **environment) as server, Api(server.url) as api:
        verified(api.post("/v1/chat/completions", messages=LONG, max_tokens=40)["toploc_proofs"], LONG)
        hold(api, verified, 24)


def test_streams_of_deltas_and_a_schema(launch: Callable[..., LocalServer], verified: Callable[..., Any]) -> None:
    with launch("--incremental-streaming-output", "--stream-interval", "8") as server, Api(server.url) as api:
        events = api.stream("/v1/chat/completions", messages=ASKED, max_tokens=70, temperature=1.0, n=2)
        ends = [event for event in events if "toploc_proofs" in event]
        assert len(verified(ends[-1]["toploc_proofs"], ASKED).choices) == 2
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        body = {"messages": ASKED, "max_tokens": 60, "response_format": schema}
        answer = api.post("/v1/chat/completions", **body)
        verified(answer["toploc_proofs"], ASKED)
        report = api.report(answer, **body)
        assert report["verdict"] in ("accepted", "undecided"), report
        assert "tokens (options)" in report["coverage"]


def test_more_answers_than_captures(launch: Callable[..., LocalServer]) -> None:
    """The ring is bounded: those beyond it have their text, and say why they have no proofs."""
    with launch("--toploc-captures", "1") as server, Api(server.url) as api:
        asked = [{"messages": ASKED, "max_tokens": 200, "ignore_eos": True}] * 16
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda body: api.post("/v1/chat/completions", **body), asked))
        fields = [answer["toploc_proofs"] for answer in answers]
        codes = {field["error"]["code"] for field in fields if "error" in field}
        assert codes == {"capture_slots_exhausted"}
        assert sum("choices" in field for field in fields) >= 9
        assert all(answer["choices"][0]["message"]["content"] for answer in answers)
        assert "9 slots for answers in progress" in server.log()


def test_on_request_and_on_error(launch: Callable[..., LocalServer], verified: Callable[..., Any]) -> None:
    options = ["--toploc-only-on-request", "--toploc-on-error", "fail", "--toploc-captures", "1"]
    with launch(*options, "--api-key", "s3cret") as server, Api(server.url) as api:
        assert api.http.get("/v1/toploc").status_code == 401
        api.http.headers["authorization"] = "Bearer s3cret"
        assert "toploc_proofs" not in api.post("/v1/chat/completions", messages=ASKED, max_tokens=4)
        wanted = api.post("/v1/chat/completions", messages=ASKED, max_tokens=4, toploc={"enabled": True})
        verified(wanted["toploc_proofs"], ASKED)
        body = {"model": "toploc-mini", "messages": ASKED, "max_tokens": 200, "ignore_eos": True, "n": 16}
        failed = api.http.post("/v1/chat/completions", json={**body, "toploc": {"enabled": True}})
        assert failed.status_code == 500
        assert failed.json()["error"]["code"] == "capture_slots_exhausted"


def test_a_verifier_alone(launch: Callable[..., LocalServer], api: Api) -> None:
    body = {"model": "toploc-mini", "messages": ASKED, "max_tokens": 40}
    answer = api.post("/v1/chat/completions", **body)
    with launch("--toploc-role", "verifier", "--api-key", "s3cret") as server, Api(server.url) as verifier:
        assert "<title>toploc verifier</title>" in verifier.http.get("/toploc").text  # which asks for the key itself
        assert verifier.http.get("/v1/toploc/page/events").status_code == 401
        verifier.http.headers["authorization"] = "Bearer s3cret"
        assert verifier.http.post("/v1/chat/completions", json=body).status_code == 404
        assert verifier.http.post("/generate", json={"text": "The"}).status_code == 404
        assert verifier.report(answer, **body)["verdict"] == "accepted"
        with verifier.http.stream("GET", "/v1/toploc/page/events") as events:
            lines = events.iter_lines()
            assert next(lines) == "event: state"
            state = json.loads(next(lines).removeprefix("data: "))
        assert "sglang" in state["engine"]
        [found] = state["newest"]
        shown = verifier.http.get(f"/v1/toploc/page/verifications/{found['id']}").json()["answer"]
        parts = [chunk["text"] for chunk in shown["choices"][0]["shown"]]
        assert "".join(parts) == answer["choices"][0]["message"]["content"]
